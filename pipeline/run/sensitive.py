"""Chains that look at single layers: what comes before a stage, and in its place what measures its layers."""

from collections.abc import Callable, Sequence

from pydantic import JsonValue

from pipeline.build.build import Built
from pipeline.build.config import PipelineConfig, StageConfig
from pipeline.errors import ConfigError
from pipeline.gate.budget import Budget
from pipeline.stage import Stage

Entries = Callable[[Stage], Sequence[dict[str, JsonValue]]]
"""What a stage says: the entries to put in its place, none where it has none."""


def looking(built: Built, what: str, entries: Entries, use: str | None = None) -> PipelineConfig:
    """The chain up to a stage and, in its place, what that says looks at its layers.

    Args:
        built: the whole chain.
        what: the word that its name ends with.
        entries: what a stage says.
        use: name of the stage, as the file has it; the first that says something unless given.

    Raises:
        ConfigError: there is no such stage, or it says nothing.
    """
    config = built.config
    uses = [entry.use for entry in config.stages]
    if use is not None and use not in uses:
        raise ConfigError(f"no stage is `{use}`", where="stages", expected=f"one of {', '.join(uses)}")
    for position, (_, stage) in enumerate(built.stages):
        own = [StageConfig.model_validate(entry) for entry in entries(stage)]
        if own and use in (None, uses[position]):
            stages = [*config.stages[:position], *own]
            changes = {"stages": stages, "name": f"{config.name}-{what}", "budget": Budget(), "choose": None}
            return config.model_copy(update=changes)
    expected = "a stage whose layers can be looked at, such as quantize.static"
    raise ConfigError(f"the stages are {', '.join(uses)}", where="stages", expected=expected)
