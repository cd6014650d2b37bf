"""What a run is asked for, a file or a mapping, as one thing to build."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.build.config import PipelineConfig
from pipeline.build.source import Source, load_config
from pipeline.build.syntax.carried import located
from pipeline.errors import ConfigError
from pipeline.records.record import Origin

if TYPE_CHECKING:
    from torch import nn

    from pipeline.build.live.lent import Loan
    from pipeline.build.live.module import Builder

Asked = str | Path | PipelineConfig | Mapping[str, Any]
"""A pipeline file, a config, or the keys of one with objects in place of names."""

WEIGHTS = "given"
"""The folder of weights of modules that were given from Python, below that of runs."""


@dataclass(frozen=True)
class Loaded:
    """A config with what stands behind it.

    Args:
        config: to build.
        source: its file, for line numbers in errors.
        origin: what the record says of where it came from.
        objects: by their digests, to be lent while it is built and run.
        module: what the model is to be where a builder was named for it.
    """

    config: PipelineConfig
    source: Source | None = None
    origin: Origin | None = None
    objects: dict[str, "Loan"] = field(default_factory=dict)
    module: "nn.Module | None" = None


def load(
    asked: Asked,
    overrides: Sequence[str] = (),
    strategy: str | None = None,
    runs: Path = Path("runs"),
    folder: Path | None = None,
    builder: "Builder | None" = None,
) -> Loaded:
    """The config that is asked for.

    Args:
        asked: see `Asked`.
        overrides, strategy: of a file; see `load_config`.
        runs: the folder of runs, for the weights of modules.
        folder: where the files that a mapping names are looked for; the working directory unless given.
        builder: of a module that stands in the mapping; see `pipeline.build.live.module.source`.

    Raises:
        ConfigError: it does not fit; or overrides, a strategy or a builder is of something else.
    """
    if isinstance(asked, str | Path):
        path = located(Path(asked))
        origin = Origin(file=str(path), folder=str(path.resolve().parent), overrides=[*overrides], strategy=strategy)
        config, source = load_config(path, overrides, strategy)
        return Loaded(config, source, origin)
    if overrides or strategy:
        where = "overrides" if overrides else "strategy"
        raise ConfigError("they are of a file", where=where, fix="Change the config itself")
    if isinstance(asked, PipelineConfig):
        return Loaded(asked)
    if not isinstance(asked, Mapping):
        raise ConfigError(f"it is a {type(asked).__name__}", where="config", expected="a file or a mapping of its keys")
    from pipeline.build.live.mapping import prepared  # torch takes its time

    whole = prepared(asked, (folder or Path()).resolve(), runs / WEIGHTS, builder)
    return Loaded(whole.config, objects=whole.objects, module=whole.module)
