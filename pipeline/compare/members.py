"""A strategy of a comparison and its runs: those that were just made, or those that are there."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.build.config import Comparing
from pipeline.build.syntax.parse import parse
from pipeline.build.syntax.validate import validate
from pipeline.compare.children import Ending
from pipeline.compare.latency import Timed
from pipeline.compare.strategies import Strategy
from pipeline.errors import ConfigError
from pipeline.records.comparison import BASELINE
from pipeline.records.folder import final_of, load_run
from pipeline.records.record import Failure, Record


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
    runs = [ending.record for ending in own if ending.record and not ending.failure]
    failed = [ending.record for ending in own if ending.record and ending.failure]
    return Member(strategy.name, runs, failed, {str(seed): failure for seed, failure in failures.items() if failure})


def of_runs(folders: Sequence[Path]) -> list[Member]:
    """The strategies of runs that are there, as their configs call them, those with other seeds together.

    Where a name does not tell runs apart, each has its own.

    Raises:
        ConfigError: one is no run folder or has not ended well, is named twice, or they are measured on different data.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("a run is named twice", where=", ".join(map(str, folders)), fix="Name each once")
    records = [load_run(folder) for folder in folders]
    for run in records:
        final_of(run)
    for split in ("test", "validation"):
        if len({digest(run, split) for run in records}) > 1:
            problem = f"these runs are measured on different {split} data"
            expected = "the same examples, for nothing else can be compared"
            raise ConfigError(problem, where=", ".join(Path(run.folder).name for run in records), expected=expected)
    by_name = defaultdict[str, list[Record]](list)
    for run in records:
        by_name[_title(run) if _is_told_by_title(run, records) else run.run].append(run)
    return [Member(name, runs) for name, runs in by_name.items()]


def comparing(settings_before: Any, overrides: Sequence[str]) -> Comparing:
    """How to compare runs that are there.

    Args:
        settings_before: `compare:` of one of them.
        overrides: such as "compare.axes=[size, macs]".

    Raises:
        ConfigError: an override is of another key, or does not fit.
    """
    changes = dict[str, Any]()
    for assignment in overrides:
        name, _, text = assignment.partition("=")
        if not name.startswith("compare."):
            raise ConfigError(f"`{name}` is set, and with --runs nothing is run", expected="a key of `compare:`")
        try:
            changes[name.removeprefix("compare.")] = parse(text)
        except (yaml.YAMLError, RecursionError):
            raise ConfigError(f"`{assignment}` is no YAML", expected="such as compare.axes=[size, macs]") from None
    settings: Comparing = validate(Comparing, {**settings_before, **changes}, None, ("compare",), Path())
    return settings


def warnings_of_changes(runs: Iterable[Record]) -> list[str]:
    """A warning where stages that are the same, after the same ones, were not made by the same code, data or libraries.

    Code that is edited while a comparison lasts is one cause, runs of different days are another.
    """
    keys = defaultdict[str, set[str]](set)
    places = dict[str, str]()
    for run in runs:
        chain: list[Any] = [run.seed, run.baseline and run.baseline.digest]
        for stage in run.stages:
            chain.append([stage.name, stage.settings])
            if stage.key and not stage.latency:
                story = json.dumps(chain)
                keys[story].add(stage.key)
                places[story] = f"stages[{stage.position}] ({stage.name})"
    changed = [places[story] for story, stage_keys in keys.items() if len(stage_keys) > 1]
    if not changed:
        return []
    return [f"{changed[0]} was not made of the same code, data and libraries in all runs: something changed in between"]


def digest(run: Record, split: str) -> str:
    """That of a split of a run's data."""
    return run.split_digests.get(split, "")


def _is_told_by_title(run: Record, runs: Sequence[Record]) -> bool:
    """Whether the runs of its title are of one config, a seed each."""
    same = [other for other in runs if _title(other) == _title(run)]
    configs = {json.dumps({**other.config, "seed": None}) for other in same}
    return len(configs) == 1 and len({other.seed for other in same}) == len(same) and _title(run) != BASELINE


def _title(run: Record) -> str:
    return (run.origin and run.origin.strategy) or str(run.config.get("name"))
