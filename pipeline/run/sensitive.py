"""The chain that measures which layers would suffer most, in place of the stage that would harm them."""

from pipeline.build.build import Built
from pipeline.build.config import PipelineConfig, StageConfig
from pipeline.errors import ConfigError
from pipeline.gate.budget import Budget


def measuring(built: Built) -> PipelineConfig:
    """The same up to the first stage that says how its layers' sensitivity is measured, and that measurement.

    Raises:
        ConfigError: no stage says so.
    """
    config = built.config
    for position, (_, stage) in enumerate(built.stages):
        entries = [StageConfig.model_validate(entry) for entry in stage.sensitivity()]
        if entries:
            stages = [*config.stages[:position], *entries]
            name = f"{config.name}-sensitivity"
            return config.model_copy(update={"stages": stages, "name": name, "budget": Budget(), "choose": None})
    uses = ", ".join(entry.use for entry in config.stages)
    expected = "a stage whose layers can be measured, such as quantize.static or quantize.dynamic"
    raise ConfigError(f"the stages are {uses}", where="stages", expected=expected)
