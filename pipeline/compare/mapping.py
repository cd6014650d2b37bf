"""The strategies of a mapping from Python, whose objects live in this process: run here, one after the other."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import runner
from pipeline.build.config import Comparing
from pipeline.build.syntax.validate import validate
from pipeline.compare.compare import compare_runs
from pipeline.errors import ConfigError
from pipeline.records.comparison import BASELINE, ComparisonRecord

KEY = "strategies"


def compare_mapping(
    config: Mapping[str, Any], *, runs: str | Path = "runs", track: bool = True, **options: Any
) -> ComparisonRecord:
    """Run every strategy of a mapping and compare the runs.

    One that fails ends it: what was made is in the store. Latencies are those of each run, not taken in turns, which a
    warning of the comparison says.

    Args:
        config: the keys of a pipeline file, with objects where `pipeline.runner.run` takes them, and under
            `strategies` a list of stages by the name of each strategy.
        runs: the folder of runs, also for that of the comparison.
        track: log to MLflow.
        options: of `pipeline.runner.run`, for each run.

    Raises:
        ConfigError: a strategy cannot work, or there are none; nothing was run.
        ShrinkError: a run failed.
    """
    chains = list(_chains(config))
    if unknown := {"overrides", "strategy"} & options.keys():
        raise ConfigError("it is of a file", where=unknown.pop(), fix="Change the mapping itself")
    looks = {name: options[name] for name in ("folder", "builder", "allow_unsafe_load") if name in options}
    for chain in chains:
        with runner.planned(chain, runs=runs, **looks):
            pass  # what it raises comes before any of them is run
    records = [runner.run(chain, runs=runs, track=track, **options) for chain in chains]
    return compare_runs([record.folder for record in records], runs=runs, track=track)


def _chains(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A mapping with one chain for each strategy and seed."""
    strategies = config.get(KEY)
    if not isinstance(strategies, Mapping) or not strategies or "stages" in config:
        expected = '{"one": [stages], "other": [stages]} in place of `stages`'
        raise ConfigError("there is nothing to compare", where=KEY, expected=expected)
    if BASELINE in strategies:
        raise ConfigError(f"a strategy is called `{BASELINE}`, as the reference is", where=KEY, fix="Name it otherwise")
    settings: Comparing = validate(Comparing, config.get("compare") or {}, None, ("compare",), Path())
    first, common = config.get("seed", 0), {key: value for key, value in config.items() if key != KEY}
    seeds = range(first, first + settings.seeds) if isinstance(first, int) else [first]  # which the config refuses
    for seed in seeds:
        for name, stages in strategies.items():
            yield {**common, "stages": stages, "name": str(name), "seed": seed}
