"""What is compared: the strategies of one file or of several, each checked before any of them runs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.use import nearest
from pipeline.build.build import Built, build
from pipeline.build.config import PipelineConfig
from pipeline.build.source import Source, load_all
from pipeline.build.syntax.carried import STRATEGIES, located
from pipeline.errors import ConfigError
from pipeline.records.comparison import BASELINE
from pipeline.stage import Stage


@dataclass(frozen=True)
class Strategy:
    """A chain to compare.

    Args:
        name: in tables; that of the file where it has one chain.
        file: the pipeline file.
        key: under `strategies:`; None where the file has one chain.
        overrides: such as "task.path=data".
        config: loaded, with the first seed.
        source: the file, for the lines of errors.
        allow_unsafe_load: see `pipeline.build.build.build`.
    """

    name: str
    file: Path
    key: str | None
    overrides: tuple[str, ...]
    config: PipelineConfig
    source: Source
    allow_unsafe_load: bool = False


def find_strategies(
    files: Sequence[Path], overrides: Sequence[str] = (), *, allow_unsafe_load: bool = False
) -> list[Strategy]:
    """The strategies of all files, in order.

    Raises:
        ConfigError: a file cannot be read, or two strategies have the same name.
    """
    strategies = []
    for file in (located(file, STRATEGIES) for file in files):
        for key, (config, source) in load_all(file, overrides).items():
            name = key or str(config.name)
            strategies.append(Strategy(name, file, key, tuple(overrides), config, source, allow_unsafe_load))
    twice = [name for name, count in Counter(strategy.name for strategy in strategies).items() if count > 1]
    if twice or BASELINE in {strategy.name for strategy in strategies}:
        name = twice[0] if twice else BASELINE
        subject = "more than one strategy" if twice else "a strategy, and so is the reference,"
        fix = "Give each strategy a name of its own; a file with `stages:` has it by `name:`"
        raise ConfigError(f"{subject} is called `{name}`", where=", ".join(map(str, files)), fix=fix)
    if len({strategy.config.seed for strategy in strategies}) > 1:
        fix = "Give all one `seed:`"
        raise ConfigError("the files have different seeds", where=", ".join(map(str, files)), fix=fix)
    for strategy in strategies:
        for name in strategy.config.compare.claims:
            if name not in {other.name for other in strategies}:
                near = nearest(name, [other.name for other in strategies])
                where = strategy.source.place(("compare", "claims", name))
                raise ConfigError(f"there is no strategy `{name}`{near}", where=where)
    return strategies


def build_all(strategies: Iterable[Strategy]) -> list[Built]:
    """All strategies built, so that none fails for its config after another has run for hours.

    Raises:
        ConfigError: one cannot work, or they are measured on different test data.
    """
    built: list[Built] = []
    for strategy in strategies:
        before, allow = built[-1] if built else None, strategy.allow_unsafe_load
        built.append(build(strategy.config, strategy.source, before, allow_unsafe_load=allow))
        for split in ("test", "validation"):
            if built[0].data[split].digest != built[-1].data[split].digest:
                problem = f"its {split} split is another than that of {built[0].config.name}"
                expected = f"the same {split} examples, for nothing else can be compared"
                fix = "Give both the same `task:` and `seed:`"
                raise ConfigError(problem, where=str(strategy.file), expected=expected, fix=fix)
        for place, stage in built[-1].stages:
            if stage.host_bound and type(stage).measure is Stage.measure:
                fix = "Give it the method `measure`, or leave it out of what is compared"
                raise ConfigError("it cannot measure several models in turns", where=place, fix=fix)
    return built
