"""What the processors' packages use, by Intel's running average power limit (RAPL), which AMD's have too.

Linux shows a counter of microjoules for each package. It begins again at zero where its range ends, after minutes at
the earliest; most systems let root alone read it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
COUNTER, RANGE = "energy_uj", "max_energy_range_uj"


@dataclass(frozen=True)
class Meter:
    """Reads the counters of all packages.

    Args:
        packages: their names and folders.
        reason: why there is nothing to read.
    """

    packages: dict[str, Path]
    reason: str = ""

    def read(self) -> list[int]:
        """Microjoules of each package so far."""
        return [_number(folder / COUNTER) for folder in self.packages.values()]

    def since(self, before: list[int], inferences: int) -> dict[str, Any]:
        """`joules` of an inference since `before` was read, and their `source`; or the `reason` why none are told.

        They are those of whole packages: nothing is taken off, not even what an idle machine uses.
        """
        if self.reason:
            return {"reason": self.reason}
        ranges = [_number(folder / RANGE) for folder in self.packages.values()]
        used = [_between(*counts) for counts in zip(before, self.read(), ranges, strict=True)]
        if not sum(used):
            return {"reason": "the counters of energy did not move while there were samples: raise `seconds`"}
        return {"joules": sum(used) / 1e6 / inferences, "source": f"RAPL: {', '.join(self.packages)}"}


def meter(powercap: Path = POWERCAP) -> Meter:
    """The packages that a system has below `powercap`; their parts, such as cores and memory, are in them."""
    packages = {}
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            if name.startswith("package"):
                packages[name] = folder
                _number(folder / RANGE), _number(folder / COUNTER)
        except (OSError, ValueError) as error:
            return Meter({}, f"{folder} tells no energy: {error}; on most systems it tells root alone")
    return Meter(packages, "" if packages else f"this system has no RAPL counters in {powercap}")


def _number(file: Path) -> int:
    return int(file.read_text())


def _between(before: int, after: int, span: int) -> int:
    """Microjoules from one count to the next, which is less where the counter began again at zero."""
    return after - before if after >= before else after + span - before
