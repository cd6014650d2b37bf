"""What a distilling training minimizes: a sum of terms against any number of teachers."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.base.batches import Outputs
from pipeline.errors import StageError
from pipeline.model import TorchModel, call
from pipeline.stage import Context
from pipeline.task import Batch
from stages.kd.cache import TeacherNeeds
from stages.kd.inspection.hooks import Hooks
from stages.kd.teacher import Teacher, TeacherSettings, keeps_logits, kept_bytes
from stages.kd.terms.logits import LogitMethod
from stages.kd.terms.term import ModelOutputs, Term, TermInputs
from stages.trainer.objective import Objective, Progress, logits_first


class Distillation(Objective):
    """The terms' weighted sum.

    Args:
        terms: with their weights and schedules.
        masters: the teachers.
        student: the model that will be trained, for the shapes of its layers.
        settings: how the teachers are used.
        ctx: the data and the task's loss.

    Raises:
        ConfigError: a term looks for layers that student or teacher have not.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        masters: Sequence[Teacher],
        student: TorchModel,
        settings: TeacherSettings,
        ctx: Context,
    ) -> None:
        super().__init__()
        self.terms, self.masters, self.average, self.hard_loss = terms, masters, settings.average, ctx.loss
        self.output = ctx.output
        total = sum(master.teacher.share for master in masters)
        self.shares = tuple(master.teacher.share / total for master in masters)
        self.watched = [[term.watch(student.module, master.look()) for master in masters] for term in terms]
        self.theirs = [
            [master.watch(taps) for master, (_, taps) in zip(masters, row, strict=True)] for row in self.watched
        ]
        self.ours: list[list[Hooks]] = []
        adapter_rows = adapters(terms, masters, student, ctx.output)
        self.adapters = nn.ModuleList(nn.ModuleList(row) for row in adapter_rows)
        self.views = settings.views if ctx.augment else 1  # without augmentation there is one
        wanted = wants(terms, [any(taps for _, taps in row) for row in self.watched])
        views = settings.views if ctx.augment else None
        needed = sum(kept_bytes(master(student.example), len(ctx.train), views) for master in masters)
        # Rank 0 decides for all: the free disk may change between two looks.
        if why := ctx.world.tell(keeps_logits(settings, wanted, ctx.augment is not None, needed, ctx.directory)):
            ctx.log.info("the teacher runs in every step: %s", why)
        for master in masters if not why else ():
            master.keep(ctx, wanted, views)

    def watch(self, student: nn.Module) -> None:
        """Read inside the student that is trained."""
        self.ours = [[Hooks(student, mine) for mine, _ in row] for row in self.watched]

    def unwatch(self) -> None:
        """Leave student and teachers as they were."""
        _remove(self.ours)
        _remove(self.theirs)

    def forward(self, batch: Batch, outputs: Outputs, moment: Progress) -> Tensor:
        """The loss of a batch at that moment of the training."""
        outputs = logits_first(outputs, self.output)
        student_layers = [[taps.take() for taps in row] for row in self.ours]
        weights = [term.weight_at(moment.done) for term in self.terms]
        active = [i for i, weight in enumerate(weights) if weight > 0]
        logits = next(iter(outputs.values()))
        answers: list[ModelOutputs] = []
        if any(self.terms[i].needs_teacher for i in active):
            inside = any(taps.wanted for i in active for taps in self.theirs[i])
            answers = [master.see(batch, moment, logits, inside=inside) for master in self.masters]
        total = logits.flatten()[:0].sum()  # zero, with a gradient even where a ramp has not begun
        for i in active:
            students = tuple(ModelOutputs(outputs, layers) for layers in student_layers[i])
            teachers = tuple(
                ModelOutputs(one.outputs, taps.take(), one.sparse)
                for one, taps in zip(answers, self.theirs[i], strict=False)
            )
            lesson = TermInputs(batch, outputs, students, teachers, self.shares, self.average, self.hard_loss)
            total = total + weights[i] * self.terms[i].loss(lesson, list(self.adapters[i].children()))
        return total


def adapters(
    terms: Sequence[Term], masters: Sequence[Teacher], student: TorchModel, output: str | None = None
) -> list[list[nn.Module]]:
    """For each term and teacher the part between them, made for the shapes that the student's example gives.

    Args:
        terms: what is minimized.
        masters: the teachers.
        student: it is not changed.
        output: name of the student's logits; its first output unless given.

    Raises:
        ConfigError: layers that are not there, or do not fit.
    """
    module = copy.deepcopy(student.module).eval()
    places = [[term.watch(module, master.look()) for master in masters] for term in terms]
    student_taps = [[Hooks(module, mine) for mine, _ in row] for row in places]
    teacher_taps = [[master.watch(taps) for master, (_, taps) in zip(masters, row, strict=True)] for row in places]
    with torch.no_grad():
        outputs = logits_first(call(module, student.example), output)
    answers = [master(student.example) for master in masters]
    adapter_rows = [
        [
            term.adapter(ModelOutputs(outputs, mine.take()), ModelOutputs(answer, taps.take()))
            for mine, taps, answer in zip(student_taps[i], teacher_taps[i], answers, strict=True)
        ]
        for i, term in enumerate(terms)
    ]
    _remove(teacher_taps)
    return adapter_rows


def wants(terms: Sequence[Term], inside: Sequence[bool]) -> TeacherNeeds:
    """What terms want of the teachers, given whether each looks inside them."""
    logits = [term for term, looks in zip(terms, inside, strict=True) if term.needs_teacher and not looks]
    layers = [term for term, looks in zip(terms, inside, strict=True) if looks]
    moments = [term.start for term in terms] + [term.end for term in terms]
    alone = any(_counts(logits, at) and not _counts(layers, at) for at in moments)
    sparse = [term for term in logits if isinstance(term, LogitMethod) and term.mass is not None]
    if sparse and len(logits) > 1:
        fix = "Leave `mass` out, or use one such term"
        raise StageError("`mass` keeps too little for several terms on logits", fix=fix)
    axis = next((term.axis for term in logits if isinstance(term, LogitMethod)), -1)
    if sparse:
        return TeacherNeeds(layers=not alone, mass=sparse[0].mass, temperature=sparse[0].temperature, axis=axis)
    return TeacherNeeds(layers=not alone, axis=axis)


def _remove(taps: list[list[Hooks]]) -> None:
    for row in taps:
        for one in row:
            one.remove()


def _counts(terms: Sequence[Term], at: float) -> bool:
    return any(term.start <= at < term.end for term in terms)
