"""How fast `shrink` starts: two checkouts in turns, as whole processes in one Python environment.

    python benchmarks/start.py OLD NEW                                 both are folders with pipeline/ and configs/
    python benchmarks/start.py OLD NEW --rounds 9 --python .venv/bin/python
    python benchmarks/start.py OLD NEW --set baseline.0.epochs=1 --set stages.0.epochs=1 --set budget.retention=null

Cases, each with configs/digits/compress.yaml of its checkout:
    plan        `shrink plan`
    cached run  `shrink run` that finds every result in the store, which is filled before; MLflow is on
    wrong key   `shrink run` of the file with a top-level key that there is not
    stage key   the same with such a key in a stage
    help        `shrink --help`

Printed for each: wall time in seconds, CPU time in seconds and the peak memory in MB of the largest process, as the
median (least-most) of OLD and of NEW, and the ratio NEW / OLD, pair by pair.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

CONFIG = Path("configs/digits/compress.yaml")


class Cost(NamedTuple):
    """Of a process and all that it started and waited for: seconds, seconds of CPU, MB of the largest."""

    wall: float
    cpu: float
    memory: float


class Checkout(NamedTuple):
    """A checkout and where its runs are."""

    code: Path
    work: Path
    python: str
    overrides: Sequence[str]

    def case(self, name: str) -> tuple[list[str], int]:
        """The arguments of a case and the exit code that it ends with."""
        config, runs = str(self.code / CONFIG), ["--runs", str(self.work / "runs")]
        sets = [text for override in self.overrides for text in ("--set", override)]
        return {
            "plan": (["plan", config, *runs, *sets], 0),
            "cached run": (["run", config, *runs, *sets], 0),
            "wrong key": (["run", str(self.work / "wrong" / CONFIG.name), *runs], 2),
            "stage key": (["run", config, *runs, "--set", "stages.0.temperatur=2"], 2),
            "help": (["--help"], 0),
        }[name]

    def fill(self) -> None:
        """Fill the store, see that all is in it, and write the file with the wrong key."""
        self.run("cached run")
        plan = subprocess.run(self._command([*self.case("plan")[0], "--json"]), **self._place(), capture_output=True)
        missing = [entry["place"] for entry in json.loads(plan.stdout)["chain"] if entry["state"] != "cached"]
        if missing:
            raise SystemExit(f"{self.code}: not stored: {', '.join(missing)}")
        (self.work / "wrong").mkdir()
        (self.work / "wrong" / CONFIG.name).write_text((self.code / CONFIG).read_text() + "\nbudgets: {}\n")

    def run(self, name: str) -> Cost:
        """Run a case as a process of its own."""
        arguments, expected = self.case(name)
        with (self.work / "log.txt").open("w") as log:
            start = time.perf_counter()
            process = subprocess.Popen(self._command(arguments), **self._place(), stdout=log, stderr=log)
            _, status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != expected:
            raise SystemExit(
                f"{self.code}: {name} ended with {process.returncode}: {(self.work / 'log.txt').read_text()}"
            )
        return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)

    def _command(self, arguments: list[str]) -> list[str]:
        return [self.python, "-m", "pipeline", *arguments]

    def _place(self) -> dict:
        return {"cwd": self.work, "env": {**os.environ, "PYTHONPATH": str(self.code)}}


def main() -> None:
    """Read the command line, fill both stores and print every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--python", default=sys.executable, help="of the environment with the libraries")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of both configs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkouts = []
        for name in ("old", "new"):
            work = Path(folder) / name
            work.mkdir()
            python = str(Path(options.python).absolute())
            checkouts.append(Checkout(getattr(options, name).resolve(), work, python, options.set))
            checkouts[-1].fill()
        for case in ("plan", "cached run", "wrong key", "stage key", "help"):
            show(case, [(checkouts[0].run(case), checkouts[1].run(case)) for _ in range(options.rounds)])


def show(case: str, pairs: list[tuple[Cost, Cost]]) -> None:
    """Print the figures of one case."""
    for field, unit in (("wall", "s"), ("cpu", "s"), ("memory", "MB")):
        olds, news = ([getattr(pair[i], field) for pair in pairs] for i in (0, 1))
        ratios = [new / old for old, new in zip(olds, news, strict=True)]
        digits = 0 if unit == "MB" else 2
        print(
            f"{case:10} {field:6} old {text(olds, digits)} {unit}, new {text(news, digits)} {unit}, "
            f"ratio {text(ratios, 2)}",
            flush=True,
        )


def text(values: list[float], digits: int) -> str:
    """The median and what it ranges over."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    main()
