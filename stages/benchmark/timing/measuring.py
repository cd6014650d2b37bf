"""The processes of one cell: those that time in rounds, that only start, and that have requests in flight."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stages.benchmark.timing.rounds import AGAIN, Failures, Participant, Timed, in_turns
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
        self, cell: Cell, folder: Path, advance: Callable[..., None], interrupted: Callable[[], bool]
    ) -> dict[Participant, Timed]:
        """What the processes of a cell tell; see `in_turns`, which each kind of them takes turns by."""
        specs = cell.specs
        timed = in_turns(specs, self.rounds, folder, cell.failures, advance, interrupted)
        once = {who: {**spec, "warmup": 0, "iterations": 1} for who, spec in specs.items() if who != AGAIN}
        started = in_turns(once, self.startups, folder, cell.failures, advance, interrupted)
        for who, short in started.items():
            timed[who].started.extend(short.facts)
        for count in self.concurrency:
            several = {who: {**spec, "concurrency": count} for who, spec in specs.items() if who.role == "model"}
            failures = Failures({**cell.failures.of}, cell.failures.baseline)  # of a model that was timed: no more
            for who, loops in in_turns(several, self.rounds, folder, failures, advance, interrupted).items():
                error = failures.error(who.name)
                reasons = [{"reason": str(error)}] if error else []
                timed[who].throughput[count] = reasons or [one["throughput"] for one in loops.facts]
        return timed
