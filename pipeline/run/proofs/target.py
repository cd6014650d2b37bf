"""What the files of a run answer on the CPUs that it is for."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from pipeline.base.hardware import saturates_on
from pipeline.build.build import Built
from pipeline.measure.isa.answers import record_of
from pipeline.measure.isa.errors import UnknownError
from pipeline.measure.isa.telling import is_loss, target_text
from pipeline.measure.measurement import MeasuredModel
from pipeline.model import TorchModel
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.parts.targets import TargetRecord
from pipeline.records.record import Record
from pipeline.run.executor import Executor
from pipeline.run.result import Result
from pipeline.run.scoring import in_pairs

AT_ONCE = 32
VARIES = "the examples of test or validation are others each time that they are read"


class Elsewhere(NamedTuple):
    """What there is to record and to say; the keys are those in the store."""

    target: TargetRecord | None = None
    keys: list[str] = []
    warnings: list[str] = []
    notes: list[str] = []


def elsewhere(
    executor: Executor,
    place: str,
    result: Result,
    model: MeasuredModel,
    baseline: MeasuredModel | None,
    before: ModelRecord | None,
) -> Elsewhere:
    """What the file of a stage answers on the CPUs of `target:`, where it has integers.

    Args:
        executor: of the run.
        place: of the stage.
        result: of the stage.
        model: the same, measured.
        baseline: the reference.
        before: the record of the model before, which is the same one where the stage only measured.

    Raises:
        ForeignError: a file from outside crashed the process that rewrites it.
        StageError: its predictions there are not finite.
    """
    built, measured = executor.built, model.evaluation
    isa, reference = built.config.isa, baseline.evaluation if baseline else None
    if not isa or isinstance(result.model, TorchModel):
        return Elsewhere()
    if result.measured_only and isinstance(before, StageRecord):
        return Elsewhere(before.target)
    keys = list[str]()
    try:
        if built.task.test.varies or built.task.validation.varies:
            raise UnknownError(VARIES)
        # Where its answers depend on the batch it is asked as it was here, else few at a time, which takes less memory.
        batch = measured.batch if measured.other_batch else min(measured.batch, AT_ONCE)
        answer, key = executor.answer(place, result, result.model, batch, isa)
    except UnknownError as error:
        error.where = ""
        target = TargetRecord(isa=isa, reason=str(error))
    else:
        keys.append(key)
        if answer is None:
            return Elsewhere(keys=keys)
        here, there = (in_pairs(built, one, measured, reference) for one in (measured, answer.evaluation))
        kept_here = here.keeps_budget is True
        target = record_of(isa, answer, there, kept_here=kept_here, can_reduce=_can_reduce(built, place))
    text = target_text(target)
    if isinstance(before, StageRecord) and before.target and _answers(before.target) == _answers(target):
        return Elsewhere(target, keys)  # what is packed answers the same, which was said
    return Elsewhere(target, keys, [text], []) if is_loss(target) else Elsewhere(target, keys, [], [text])


def _answers(target: TargetRecord) -> dict[str, Any]:
    """What it answers, apart from the names of its layers."""
    return target.model_dump(exclude={"layers"})


def _can_reduce(built: Built, place: str) -> bool:
    """Whether the stage of that place, or one before it, has `reduce_range` and does not use it."""
    places = [name for name, _ in built.stages]
    return any(getattr(one, "reduce_range", None) is False for _, one in built.stages[: places.index(place) + 1])


def missing(built: Built, record: Record) -> Iterable[str]:
    """A warning where no file of a run had integers, so that `target:` found nothing to look at."""
    isa = built.config.isa
    if isa and not any(stage.target for stage in record.stages):
        kind = "saturates" if saturates_on(isa) else "is exact"
        yield f"target: no file of this run has integers, so whether {isa} {kind} makes no difference to it"
