"""Checks of a distillation before anything is trained: what cannot work, what is suspicious, what is cached."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from pipeline.base.batches import Inputs
from pipeline.base.formatting import bytes_text, few
from pipeline.base.targets.labelling import Labelling
from pipeline.context import Preview
from pipeline.errors import ConfigError, Note
from pipeline.measure.cost import torch_params
from pipeline.model import TorchModel
from pipeline.task import scored
from stages.kd.objective import adapters, needs_of
from stages.kd.teacher import Teacher, logits_bytes, why_not_cached
from stages.kd.teacher_config import TeacherSettings
from stages.kd.terms.logits import LogitMethod
from stages.kd.terms.term import Term
from stages.trainer.objective import first

SMALL_SHARE = 0.2
NO_LOGITS = "Train the small model with train.supervised, or give the task logits"


def misfits(terms: Sequence[Term], student: TorchModel, teachers: Sequence[Teacher], preview: Preview) -> Iterator[str]:
    """What is suspicious about these terms between student and teachers, of whom the structure is enough.

    Raises:
        ConfigError: they cannot work: layers that are not there, shapes that do not fit, no logits.
    """
    _expect_no_gap(terms)
    modules = [teacher.look() for teacher in teachers]
    on_logits = [term for term in terms if isinstance(term, LogitMethod)]
    if not preview.logits:
        for method in on_logits:
            _expect_logits(_logits(student, preview), method.labelling_of(preview.labelling))
    expect_kind(terms, preview)
    for term in terms:
        yield from term.check_models(student.module, modules, preview)
    if on_logits:
        _expect_same_logits(_logits(student, preview), student.example, teachers)
    adapters(terms, teachers, student, preview.output)


def smallness(student: TorchModel, teachers: Sequence[Teacher]) -> Iterator[Note]:
    """A note of a student that is small beside its largest teacher."""
    size, largest = torch_params(student.module), max(torch_params(teacher.look()) for teacher in teachers)
    if size < SMALL_SHARE * largest:
        yield Note(
            f"the student has {size:,} parameters, {size / largest:.1%} of the teacher's {largest:,}; where it cannot "
            "follow, make it wider or let it `grow`"
        )


def caching(
    settings: TeacherSettings, terms: Sequence[Term], student: TorchModel, teachers: Sequence[Teacher], preview: Preview
) -> Note:
    """Whether the teachers run once an example or in every step, why, and what caching their logits takes."""
    inside = [any(term.watch(student.module, teacher.look())[1] for teacher in teachers) for term in terms]
    views = settings.views if preview.augment else None
    needed = sum(logits_bytes(teacher(student.example), len(preview.train), views) for teacher in teachers)
    if why := why_not_cached(settings, needs_of(terms, inside, preview.labelling), preview, needed, Path()):
        return Note(f"the teacher runs in every step: {why}")
    views_text = f" in {views} views" if views else ""
    until = max((term.end for term, looks in zip(terms, inside, strict=True) if looks), default=0.0)
    steps = f", and in every step of the first {until:.0%}, where its layers are looked at" if until else ""
    most = "at most " if any(isinstance(term, LogitMethod) and term.mass for term in terms) else ""
    return Note(
        f"the teacher runs once an example{views_text}; its logits take {most}{bytes_text(needed)} on disk{steps}"
    )


def taught(terms: Sequence[Term], student: TorchModel, teachers: Sequence[Teacher]) -> Iterator[Note]:
    """A note of the layers of the student that learn from layers of the teachers, where any do."""
    hooks = [term.watch(student.module, teacher.look()) for term in terms for teacher in teachers]
    layers = [(a.layer, b.layer) for own, others in hooks for a, b in zip(own, others, strict=False)]
    if pairs := [f"`{ours}` from `{theirs}`" for ours, theirs in dict.fromkeys(layers)]:
        yield Note(f"layers learn: {few(pairs)}")


def expect_kind(terms: Sequence[Term], preview: Preview) -> None:
    """Raise ConfigError where a term does not take tasks of this kind."""
    kind = preview.labelling.kind
    for problem, fix in filter(None, (term.refusal(kind) for term in terms)):
        raise ConfigError(f"{problem}, and the task is {kind} by its targets", fix=fix)


def _expect_no_gap(terms: Sequence[Term]) -> None:
    """Raise ConfigError where there is a part of the training in which nothing is minimized."""
    counting = [term for term in terms if term.weight > 0]
    for at in sorted({0.0, *(term.end for term in counting if term.end < 1)}):
        if not any(term.start <= at < term.end for term in counting):
            problem = f"no term counts after {at:.0%} of the training"
            raise ConfigError(problem, expected="one at every moment", fix="Move a `start` or an `end`")


def _logits(student: TorchModel, preview: Preview) -> Tensor:
    return scored(student.predict(student.example), preview.output)


def _expect_same_logits(logits: Tensor, example: Inputs, teachers: Sequence[Teacher]) -> None:
    student_shape = tuple(logits.shape)
    for i, teacher in enumerate(teachers):
        teacher_shape = tuple(first(teacher(example)).shape)
        if student_shape != teacher_shape:
            which = f"teachers[{i}]" if len(teachers) > 1 else "the teacher"
            problem = f"the student gives logits {student_shape}"
            raise ConfigError(problem, expected=f"{teacher_shape}, as {which} gives")


def _expect_logits(output: Tensor, labelling: Labelling) -> None:
    """Raise ConfigError where a first output that is not what is predicted can be no logits either.

    Sequences and maps are decoded from scores over classes at each position; a row of numbers an example may be
    anything, such as a regression's. What is for and against labels is logits where some are no probabilities.
    """
    if labelling.kind == "multi_label" and bool(output.min() < 0 or output.max() > 1):
        return
    axis = labelling.axis
    there = output.is_floating_point() and output.ndim > 2 and -output.ndim <= axis < output.ndim
    if not there or output.shape[axis] < 2:
        expected = "Task(logits=True), or a first output of logits (N, positions, classes) that predictions come from"
        raise ConfigError("the task's predictions are no logits", expected=expected, fix=NO_LOGITS)
