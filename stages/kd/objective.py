"""What a distilling training minimizes: a sum of terms against any number of teachers."""

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from pipeline.base.batches import Outputs
from pipeline.base.targets.labelling import Labelling
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.model import TorchModel, call
from pipeline.task import Batch
from stages.kd.inspection.hooks import Hooks
from stages.kd.teacher import Teacher, logits_bytes, why_not_cached
from stages.kd.teacher_config import TeacherSettings
from stages.kd.terms.logits import LogitMethod
from stages.kd.terms.term import ModelOutputs, Term, TermInputs
from stages.kd.top_classes import TeacherNeeds
from stages.trainer.objective import Objective, Progress, logits_first


class Distillation(Objective):
    """The terms' weighted sum.

    Args:
        terms: with their weights and schedules.
        teachers: the teachers.
        student: the model that will be trained, for the shapes of its layers.
        settings: how the teachers are used.
        ctx: the data and the task's loss.

    Raises:
        ConfigError: a term looks for layers that student or teacher have not.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        teachers: Sequence[Teacher],
        student: TorchModel,
        settings: TeacherSettings,
        ctx: Context,
    ) -> None:
        super().__init__()
        self.terms, self.teachers, self.average, self.hard_loss = terms, teachers, settings.average, ctx.loss
        self.output, self.labelling = ctx.output, ctx.labelling
        total = sum(teacher.config.share for teacher in teachers)
        self.shares = tuple(teacher.config.share / total for teacher in teachers)
        self.watched = [[term.watch(student.module, teacher.look()) for teacher in teachers] for term in terms]
        self.teacher_hooks = [
            [teacher.watch(hooks) for teacher, (_, hooks) in zip(teachers, row, strict=True)] for row in self.watched
        ]
        self.student_hooks: list[list[Hooks]] = []
        adapter_rows = adapters(terms, teachers, student, ctx.output)
        self.adapters = nn.ModuleList(nn.ModuleList(row) for row in adapter_rows)
        self.views = settings.views if ctx.augment else 1  # without augmentation there is one
        needs = needs_of(terms, [any(hooks for _, hooks in row) for row in self.watched], ctx.labelling)
        views = settings.views if ctx.augment else None
        needed = sum(logits_bytes(teacher(student.example), len(ctx.train), views) for teacher in teachers)
        # Rank 0 decides for all: the free disk may change between two looks.
        if why := ctx.world.broadcast(why_not_cached(settings, needs, ctx, needed, ctx.directory)):
            ctx.log.info("the teacher runs in every step: %s", why)
        for teacher in teachers if not why else ():
            teacher.cache(ctx, needs, views)

    def watch(self, student: nn.Module) -> None:
        """Read inside the student that is trained."""
        self.student_hooks = [[Hooks(student, hooks) for hooks, _ in row] for row in self.watched]

    def unwatch(self) -> None:
        """Leave student and teachers as they were."""
        _remove(self.student_hooks)
        _remove(self.teacher_hooks)

    def forward(self, batch: Batch, outputs: Outputs, progress: Progress) -> Tensor:
        """The loss of a batch after that part of the training."""
        outputs = logits_first(outputs, self.output)
        student_layers = [[hooks.take() for hooks in row] for row in self.student_hooks]
        weights = [term.weight_at(progress.done) for term in self.terms]
        active = [i for i, weight in enumerate(weights) if weight > 0]
        logits = next(iter(outputs.values()))
        answers: list[ModelOutputs] = []
        if any(self.terms[i].needs_teacher for i in active):
            inside = any(len(hooks) for i in active for hooks in self.teacher_hooks[i])
            answers = [teacher.answer(batch, progress, logits, inside=inside) for teacher in self.teachers]
        total = logits.flatten()[:0].sum()  # zero, with a gradient even where a ramp has not begun
        for i in active:
            students = tuple(ModelOutputs(outputs, layers) for layers in student_layers[i])
            pairs = zip(answers, self.teacher_hooks[i], strict=False)
            teachers = tuple(ModelOutputs(answer.outputs, hooks.take(), answer.sparse) for answer, hooks in pairs)
            of_task = (self.shares, self.average, self.hard_loss, self.labelling)
            inputs = TermInputs(batch, outputs, students, teachers, *of_task)
            total = total + weights[i] * self.terms[i].loss(inputs, list(self.adapters[i].children()))
        return total


def adapters(
    terms: Sequence[Term], teachers: Sequence[Teacher], student: TorchModel, output: str | None = None
) -> list[list[nn.Module]]:
    """For each term and teacher the part between them, made for the shapes that the student's example gives.

    Args:
        terms: what is minimized.
        teachers: the teachers.
        student: it is not changed.
        output: name of the student's logits; its first output unless given.

    Raises:
        ConfigError: layers that are not there, or do not fit.
    """
    module = copy.deepcopy(student.module).eval()
    places = [[term.watch(module, teacher.look()) for teacher in teachers] for term in terms]
    student_hooks = [[Hooks(module, hooks) for hooks, _ in row] for row in places]
    teacher_hooks = [
        [teacher.watch(hooks) for teacher, (_, hooks) in zip(teachers, row, strict=True)] for row in places
    ]
    with torch.no_grad():
        outputs = logits_first(call(module, student.example), output)
    answers = [teacher(student.example) for teacher in teachers]
    adapter_rows = [
        [
            term.adapter(ModelOutputs(outputs, own.take()), ModelOutputs(answer, hooks.take()))
            for own, hooks, answer in zip(student_hooks[i], teacher_hooks[i], answers, strict=True)
        ]
        for i, term in enumerate(terms)
    ]
    _remove(teacher_hooks)
    return adapter_rows


def needs_of(terms: Sequence[Term], inside: Sequence[bool], labelling: Labelling) -> TeacherNeeds:
    """What terms need of the teachers, given whether each looks inside them, and the labelling of the task."""
    logits = [term for term, looks in zip(terms, inside, strict=True) if term.needs_teacher and not looks]
    layers = [term for term, looks in zip(terms, inside, strict=True) if looks]
    times = [term.start for term in terms] + [term.end for term in terms]
    alone = any(_counts(logits, at) and not _counts(layers, at) for at in times)
    sparse = [term for term in logits if isinstance(term, LogitMethod) and term.mass is not None]
    if sparse and len(logits) > 1:
        fix = "Leave `mass` out, or use one such term"
        raise StageError("`mass` keeps too little for several terms on logits", fix=fix)
    axis = next((term.labelling_of(labelling).axis for term in logits if isinstance(term, LogitMethod)), -1)
    if sparse:
        return TeacherNeeds(
            layers=not alone, mass=sparse[0].mass, temperature=sparse[0].softening(labelling.kind), axis=axis
        )
    return TeacherNeeds(layers=not alone, axis=axis)


def _remove(hooks: list[list[Hooks]]) -> None:
    for handles in chain.from_iterable(hooks):
        handles.remove()


def _counts(terms: Sequence[Term], at: float) -> bool:
    return any(term.start <= at < term.end for term in terms)
