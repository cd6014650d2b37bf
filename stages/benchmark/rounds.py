"""Rounds of fresh processes: every model once a round, one process at a time, in an order that no drift favours."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.errors import Interruption, ResourceError, StageError

ROOT = Path(__file__).parents[2]
LESS = "Lower `batch`, or run where there is more memory"

Spec = dict[str, Any]
"""What `stages.benchmark.runners.child` reads."""


class Participant(NamedTuple):
    """Who takes part in a round; the name is the model's label, and empty for the baseline."""

    role: Literal["model", "baseline", "again"]
    name: str = ""


BASELINE, AGAIN = Participant("baseline"), Participant("again")


@dataclass
class Failures:
    """Why models failed, by name. Where there is only one model, or the baseline fails, the error goes on."""

    alone: bool
    of: dict[str, str] = field(default_factory=dict)

    def take(self, member: Participant, error: StageError | ResourceError) -> None:
        """Keep the error of a model that has others beside it."""
        if self.alone or member.role != "model":
            raise error
        self.of[member.name] = str(error)

    def out(self, member: Participant) -> bool:
        """Whether there is no more to time here."""
        return member.role == "model" and member.name in self.of


@dataclass(frozen=True)
class Timed:
    """Latencies in milliseconds of each round's process, and the execution provider."""

    processes: list[list[float]] = field(default_factory=list)
    providers: list[str] = field(default_factory=list)


def turns(count: int, rounds: int) -> list[list[int]]:
    """The order of each round: positions 0 to count - 1, each once.

    Over `count` rounds each is first, second, ... once. An even count has every ordered pair of neighbours once too,
    and each second round is the mirror image of the one before; for an odd count the mirrored rounds follow after, so
    that both hold over 2 * count rounds. A drift then favours none, and neither does what a process leaves behind.

    Args:
        count: of those that take part; for none there are no orders.
        rounds: number of orders.

    Reference:
        E. J. Williams, "Experimental designs balanced for the estimation of residual effects of treatments",
        Australian Journal of Scientific Research A 2, 1949.
    """
    first = [(i + 1) // 2 if i % 2 else (count - i // 2) % count for i in range(count)]  # 0, 1, n - 1, 2, n - 2, ...
    half, is_odd = count // 2, count % 2
    orders = []
    for i in range(rounds if count else 0):
        block, step = divmod(i, count)
        # Far from the shift before, so that also a part of a block is as even as it can be.
        shift = step * half if is_odd else step // 2 + step % 2 * half
        order = [(place + shift) % count for place in first]
        orders.append(order[::-1] if is_odd and block % 2 else order)
    return orders


def in_turns(
    specs: Mapping[Participant, Spec],
    rounds: int,
    folder: Path,
    failures: Failures,
    advance: Callable[..., None],
    interrupted: Callable[[], bool],
) -> dict[Participant, Timed]:
    """Time each spec once a round, each in a fresh process.

    Args:
        specs: the spec of the process of each.
        rounds: processes of each.
        folder: where specs and results are written.
        failures: collects models that fail, which then take part no longer.
        advance: advance(1, note) is called after each process.
        interrupted: whether to stop.

    Raises:
        StageError, ResourceError: the baseline failed, or the only model.
        Interruption: a stop was asked for.
    """
    everyone, timed = list(specs), {member: Timed() for member in specs}
    for member in (everyone[i] for order in turns(len(everyone), rounds) for i in order):
        if interrupted():
            raise Interruption("stopped between two processes that time")
        is_left = any(one.role == "model" and not failures.out(one) for one in everyone)
        if is_left and not failures.out(member):
            try:
                samples, provider = time_process(specs[member], folder)
            except (StageError, ResourceError) as error:
                if interrupted():  # Ctrl-C reaches the child too: that is no failure of the model
                    raise Interruption("stopped while a process timed") from error
                failures.take(member, error)
            else:
                timed[member].processes.append(samples)
                timed[member].providers.append(provider)
        advance(1, f"{specs[member]['runtime']}, threads {specs[member]['threads']}")
    return timed


def time_process(spec: Spec, folder: Path) -> tuple[list[float], str]:
    """Time a model in a fresh process.

    Args:
        spec: what `stages.benchmark.runners.child` reads, without `result`; paths are absolute.
        folder: where the spec and the result are written.

    Returns:
        Latencies in milliseconds, and the execution provider.

    Raises:
        StageError: the process failed; with the last lines that it wrote.
        ResourceError: it was killed, most likely for memory.
    """
    path, result = folder / "spec.json", folder / "result.json"
    result.unlink(missing_ok=True)
    path.write_text(json.dumps({**spec, "result": str(result)}))
    command = [sys.executable, "-m", "stages.benchmark.runners.child", str(path)]
    # -m looks in the current folder first: ours, not one where the user may have an onnx.py.
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode == -signal.SIGKILL:
        raise ResourceError("the process that timed was killed, as the system does when memory runs out", fix=LESS)
    if ended.returncode or not result.is_file():
        last = " | ".join(ended.stderr.strip().splitlines()[-5:]) or "no message"
        raise StageError(f"the process that timed {spec['model']} ended with {ended.returncode}: {last}")
    content = json.loads(result.read_text())
    return [ns / 1e6 for ns in content["samples_ns"]], str(content["description"]["execution_provider"])
