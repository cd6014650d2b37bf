"""A strategy of a comparison and its runs: those that were just made, or those that are there."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.compare.children import Ending
from pipeline.compare.latency import Timed
from pipeline.compare.strategies import Strategy
from pipeline.config import BASELINE
from pipeline.errors import ConfigError, blame
from pipeline.record import Failure, Record


@dataclass(frozen=True)
class Member:
    """A strategy with how its runs ended.

    Args:
        name: of the strategy.
        runs: those that came to their end.
        failed: those that did not, as far as they came.
        failures: why, by seed; also of those that could not be timed.
    """

    name: str
    runs: Sequence[Record]
    failed: Sequence[Record] = ()
    failures: dict[str, Failure] = field(default_factory=dict)


def of_endings(strategy: Strategy, endings: Iterable[Ending], timed: Timed) -> Member:
    """A strategy with what became of its runs."""
    own = [ending for ending in endings if ending.order.strategy is strategy]
    failures = {e.order.seed: e.failure or timed.failures.get(e.order) for e in own}
    return Member(
        strategy.name,
        [ending.record for ending in own if ending.record and not ending.failure],
        [ending.record for ending in own if ending.record and ending.failure],
        {str(seed): failure for seed, failure in failures.items() if failure},
    )


def of_runs(folders: Sequence[Path]) -> list[Member]:
    """The strategies of runs that are there, as their configs call them, those with other seeds together.

    Where a name does not tell runs apart, each has its own.

    Raises:
        ConfigError: one is no run folder or has not ended well, is named twice, or they are measured on different data.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("a run is named twice", where=", ".join(map(str, folders)), fix="Name each once")
    found = [load_run(folder) for folder in folders]
    for split in ("test", "validation"):
        if len({digest(run, split) for run in found}) > 1:
            raise ConfigError(
                f"these runs are measured on different {split} data",
                where=", ".join(Path(run.folder).name for run in found),
                expected="the same examples, for nothing else can be compared",
            )
    named = defaultdict[str, list[Record]](list)
    for run in found:
        named[_title(run) if _is_told_by_title(run, found) else run.run].append(run)
    return [Member(name, runs) for name, runs in named.items()]


def load_run(folder: Path) -> Record:
    """The record of a run that came to its end. Raises ConfigError for another."""
    folder = folder.resolve()
    if not (folder / "record.json").is_file():
        raise ConfigError("this is no run folder", where=str(folder), expected="a folder with a record.json")
    with blame(ConfigError, str(folder)):
        run = Record.load(folder)
    if run.failure or not run.final or not run.baseline:
        raise ConfigError("this run has not come to its end", where=str(folder), fix="shrink resume goes on with it")
    return run


def digest(run: Record, split: str) -> str:
    """That of a split of a run's data."""
    data: Any = run.data
    return str(data[split]["digest"])


def _is_told_by_title(run: Record, found: Sequence[Record]) -> bool:
    """Whether the runs of its title are of one config, a seed each."""
    same = [other for other in found if _title(other) == _title(run)]
    configs = {json.dumps({**other.config, "seed": None}) for other in same}
    return len(configs) == 1 and len({other.seed for other in same}) == len(same) and _title(run) != BASELINE


def _title(run: Record) -> str:
    return (run.origin and run.origin.strategy) or str(run.config["name"])
