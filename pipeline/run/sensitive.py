"""Chains that look at single layers: what comes before a stage, and in its place what measures its layers."""

from collections.abc import Callable, Sequence

from pydantic import JsonValue

from pipeline.base.devices import pick_device
from pipeline.base.formatting import few
from pipeline.build.build import Built
from pipeline.build.config import PipelineConfig, StageConfig
from pipeline.errors import ConfigError
from pipeline.gate.budget import Budget
from pipeline.records.record import Record
from pipeline.run.plan import started, states
from pipeline.run.store.key import Keys
from pipeline.run.store.store import Store
from pipeline.stage import Stage

Entries = Callable[[Stage], Sequence[dict[str, JsonValue]]]
"""What a stage says: the entries to put in its place, none where it has none."""


def looking(
    built: Built,
    what: str,
    entries: Entries,
    use: str | None = None,
    *,
    behind: Callable[[Stage], bool] = lambda stage: False,
) -> PipelineConfig:
    """The chain up to a stage and, in its place, what that says looks at its layers.

    Args:
        built: the whole chain.
        what: the word that its name ends with.
        entries: what a stage says.
        use: name of the stage, as the file has it; the first that says something unless given.
        behind: whether the stage itself stays.

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
            stages = [*config.stages[: position + behind(stage)], *own]
            changes = {"stages": stages, "name": f"{config.name}-{what}", "budget": Budget(), "choose": None}
            return config.model_copy(update=changes)
    expected = "a stage whose layers can be looked at, such as quantize.static"
    raise ConfigError(f"the stages are {', '.join(uses)}", where="stages", expected=expected)


def check_recorded(built: Built, chain: PipelineConfig, record: Record, store: Store) -> None:
    """Refuse to look at the layers of a run's stage where what comes into it would be another model than the run had.

    Args:
        built: the run's config, with the code and the data of today.
        chain: of `looking`.
        record: of the run.
        store: what the run has left there.

    Raises:
        ConfigError: the data have changed, or a stage before would be made anew.
    """
    fix = "Run the pipeline again, and bisect that run"
    digests = record.split_digests
    if changed := [name for name, split in built.data.items() if digests.get(name, split.digest) != split.digest]:
        raise ConfigError(f"the data are not those of the run: {few(changed, 5)} changed", where="task", fix=fix)
    baseline = record.baseline
    if baseline and not built.baseline:
        start = started(built, Keys(built, pick_device(built.config.device)))
        if start["digest"] != baseline.digest:
            raise ConfigError("the model is not the one that the run began with", where="model", fix=fix)
    known = {key for _, model in record.models for key in model.uses}
    count = sum(one is other for one, other in zip(chain.stages, built.config.stages, strict=False))
    stages = (*built.baseline, *built.stages[:count])
    for (place, _), state in zip(stages, states(built, store, record.run), strict=False):
        if state["state"] != "cached":
            raise ConfigError(f"it would be made anew: {few(state['why'], 5)}", where=place, fix=fix)
        if state["key"] not in known:
            raise ConfigError("the run had another result of it", where=place, fix=fix)
