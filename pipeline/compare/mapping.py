"""The strategies of a mapping from Python, whose objects live in this process: run here, one after the other."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import runner
from pipeline.base.use import nearest
from pipeline.build.config import Comparing
from pipeline.build.live.call import keywords
from pipeline.build.syntax.validate import validate
from pipeline.compare.compare import compare_runs
from pipeline.errors import ConfigError
from pipeline.records.comparison import BASELINE, ComparisonRecord
from pipeline.run.foresight import foreseen

KEY = "strategies"
OF_A_FILE = ("overrides", "strategy", "comparison")


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
        ConfigError: a strategy cannot work, or there are none, or they are measured on different data; nothing was run.
        ShrinkError: a run failed.
    """
    known = [name for name in keywords(runner.run) if name not in OF_A_FILE]
    for name in options:
        if name not in known:
            raise ConfigError(f"there is no argument `{name}`{nearest(name, known)}", where="compare")
    chains = list(_chains(config))
    _check(chains, runs, {name: value for name, value in options.items() if name in keywords(runner.planned)})
    records = [runner.run(chain, runs=runs, track=track, **options) for chain in chains]
    return compare_runs([record.folder for record in records], runs=runs, track=track)


def _check(chains: list[dict[str, Any]], runs: str | Path, options: Mapping[str, Any]) -> None:
    """Raise ConfigError where one cannot work, or is measured on other data than the first."""
    digests: dict[str, str] = {}
    for chain in chains:
        with runner.planned(chain, runs=runs, **options) as (built, store):
            foreseen(built, store)
        for split in ("test", "validation"):
            if digests.setdefault(split, built.data[split].digest) != built.data[split].digest:
                problem = f"its {split} split is another than that of `{chains[0]['name']}`, seed {chains[0]['seed']}"
                where = f"{KEY}: {chain['name']}, seed {chain['seed']}"
                raise ConfigError(problem, where=where, fix="Draw it with a seed of its own")


def _chains(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A mapping with one chain for each strategy and seed."""
    strategies = config.get(KEY)
    if not isinstance(strategies, Mapping) or not strategies or "stages" in config:
        expected = '{"one": [stages], "other": [stages]} in place of `stages`'
        raise ConfigError("there is nothing to compare", where=KEY, expected=expected)
    if BASELINE in strategies:
        raise ConfigError(f"a strategy is called `{BASELINE}`, as the reference is", where=KEY, fix="Name it otherwise")
    names = [str(name) for name in strategies]
    settings: Comparing = validate(Comparing, config.get("compare") or {}, None, ("compare",), Path())
    for claimed in settings.claims:
        if claimed not in names:
            raise ConfigError(f"there is no strategy `{claimed}`{nearest(claimed, names)}", where="compare.claims")
    first, common = config.get("seed", 0), {key: value for key, value in config.items() if key != KEY}
    seeds = range(first, first + settings.seeds) if isinstance(first, int) else [first]  # which the config refuses
    own = [str(config["name"])] if config.get("name") else []
    for seed in seeds:
        for name, stages in strategies.items():
            yield {**common, "stages": stages, "name": "-".join([*own, str(name)]), "seed": seed}
