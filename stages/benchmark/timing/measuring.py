"""The processes of cells that are compared: they time in rounds, only start, or have several requests at a time."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from stages.benchmark.processes.process import Spec
from stages.benchmark.timing.across import First, Processes
from stages.benchmark.timing.rounds import AGAIN, Group, Participant, Timed, in_turns
from stages.benchmark.timing.rows import Cell


@dataclass(frozen=True)
class Plan:
    """How often processes are started.

    Args:
        rounds: of processes that time.
        startups: further rounds, in which the baseline and each model start and do one inference.
        concurrency: of requests; each is tried with each model in as many rounds as there are of those that time.
    """

    rounds: int
    startups: int = 0
    concurrency: tuple[int, ...] = ()

    def processes(self, cell: Cell) -> int:
        """How many a cell needs."""
        again = sum(member == AGAIN for member in cell.specs)
        models = sum(member.role == "model" for member in cell.specs)
        loops = self.rounds * models * len(self.concurrency)
        return self.rounds * len(cell.specs) + self.startups * (len(cell.specs) - again) + loops

    def measure(
        self, cells: Sequence[Cell], folder: Path, advance: Callable[..., None], interrupted: Callable[[], bool]
    ) -> list[tuple[Cell, Processes, First | None, str]]:
        """Each cell with what its processes told, the first one in the same rounds, and when these ended.

        The first one has no first.
        Cells of as many threads and examples take turns in the same rounds; see `in_turns`.
        """
        shapes = defaultdict[tuple[JsonValue, JsonValue], list[Cell]](list)
        for cell in cells:
            shapes[cell.place.get("threads"), cell.place.get("batch")].append(cell)
        measured = {}
        for compared in shapes.values():
            processes = self._told(compared, partial(in_turns, folder=folder, advance=advance, interrupted=interrupted))
            first, when = First(compared[0].title, processes[0]), datetime.now(UTC).isoformat()
            for i, (cell, timed) in enumerate(zip(compared, processes, strict=True)):
                measured[id(cell)] = cell, timed, first if i else None, when
        return [measured[id(cell)] for cell in cells]

    def _told(self, cells: Sequence[Cell], run: Callable[..., list[dict[Participant, Timed]]]) -> list[Processes]:
        """What the processes of cells in the same rounds tell; `run` is in_turns(groups, rounds)."""
        timed = run([Group(cell.specs, cell.failures) for cell in cells], self.rounds)
        shorts = run([Group(_starting(cell.specs), cell.failures) for cell in cells], self.startups)
        for of, short in zip(timed, shorts, strict=True):
            for who, started in short.items():
                of[who].started.extend(started.facts)
        for count in self.concurrency:
            # What fails at it was timed before: it has no throughput, and no more.
            groups = [Group(_asking(cell.specs, count), cell.failures.copied()) for cell in cells]
            for of, group, loops in zip(timed, groups, run(groups, self.rounds), strict=True):
                for who, looped in loops.items():
                    error = group.failures.error(who.name)
                    reasons = [{"reason": str(error)}] if error else []
                    of[who].throughput[count] = reasons or [one["throughput"] for one in looped.facts]
        return [*timed]


def _starting(specs: Mapping[Participant, Spec]) -> dict[Participant, Spec]:
    """Of processes that do one inference."""
    return {who: {**spec, "warmup": 0, "iterations": 1} for who, spec in specs.items() if who != AGAIN}


def _asking(specs: Mapping[Participant, Spec], count: int) -> dict[Participant, Spec]:
    """Of processes with so many requests at a time."""
    return {who: {**spec, "concurrency": count} for who, spec in specs.items() if who.role == "model"}
