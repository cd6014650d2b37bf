"""What all distilling stages have in common: a student, teachers, terms, and the question what it brought."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, JsonValue, field_validator, model_validator

from pipeline.base.data.strict import Strict
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError
from pipeline.measure.accuracy import mean_score
from pipeline.measure.cost import torch_params
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage
from stages.kd.checks import caching, misfits, smallness, taught
from stages.kd.diagnosis import diagnose
from stages.kd.objective import Distillation
from stages.kd.student import GIVEN, Student
from stages.kd.teacher import Teacher, open_teachers
from stages.kd.teacher_config import NO_BASELINE, TeacherConfig, TeacherSettings
from stages.kd.terms.labels import Labels
from stages.kd.terms.logits import LogitMethod
from stages.kd.terms.term import Schedule, Term
from stages.trainer.loop import train
from stages.trainer.objective import Supervised
from stages.trainer.settings import TrainingSettings

INCOMING = TeacherConfig(use="incoming")


class Grow(Strict):
    """Sizes to try from the smallest on, until a larger one brings little."""

    argument: str = Field(description="of the student: one of its builder's, or layers")
    sizes: tuple[int, ...] = Field(min_length=2, description="rising")
    tolerance: float = Field(0.005, ge=0, description="a gain in validation score that is not worth a size")

    @field_validator("sizes")
    @classmethod
    def _rising(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if any(a >= b for a, b in pairwise(sizes)):
            raise ValueError(f"rising sizes, not {list(sizes)}")
        return sizes


class Distilling(TrainingSettings, TeacherSettings, Stage):
    """Common settings and the run; a method says which terms it minimizes."""

    student: Student = Field(description="{use: models.py:SmallNet, width: 16}, or {shrink_of: teacher, layers: 3}")
    teacher: Literal["incoming", "baseline"] = Field("incoming", description="the model that comes in, or the baseline")
    grow: Grow | None = Field(None, description="sizes of the student to try until its accuracy saturates")
    control: bool = Field(False, description="also train the same student on labels alone, as many steps")
    seeds: int = Field(1, gt=0, description="trainings with different seeds, for mean and deviation")

    @model_validator(mode="after")
    def _another_teaches(self) -> Self:
        if self.student.use == "incoming" and any(config.use == "incoming" for config in self.teacher_configs()):
            raise ValueError("the model that comes in would be its own teacher: set `teacher: baseline`")
        if self.student.use == "incoming" and self.grow:
            raise ValueError("the model that comes in has one size: give a student that is to `grow` a builder")
        return self

    @abstractmethod
    def terms_of(self) -> tuple[Term, ...]:
        """What is minimized."""

    def trainings(self) -> Iterable[tuple[int, int]]:
        """One for each size that is tried, and for each seed, with that of a control; see `Stage.trainings`."""
        sizes = len(self.grow.sizes) if self.grow else 0
        return [*super().trainings()] * (sizes + self.seeds * (2 if self.control else 1))

    def taught_by_baseline(self, incoming: bool) -> bool:
        """Where the settings name no other, it teaches."""
        return not self.teachers and (incoming or self.teacher == "baseline")

    def builds_on_incoming(self) -> bool:
        """As the student or as a teacher; not where the baseline teaches a student that is built or made of it."""
        return "incoming" in {self.student.use, *(config.use for config in self.teacher_configs())}

    def builds_anew(self) -> bool:
        """Where the student has a builder of its own."""
        return bool(self.student.use) and self.student.use not in GIVEN

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuses teachers, layers and logits that do not fit; tells of students that are far smaller."""
        pairs = ((config, self._expected(config, before, preview)) for config in self.teacher_configs())
        teachers = [Teacher(config, model, output=preview.output) for config, model in pairs]
        student = self._expected_student(before, preview, smallest=True)
        yield from misfits(self.terms_of(), student, teachers, preview)
        if not self.grow:
            yield from smallness(student, teachers)
        yield from self.foresee(student, teachers, preview)

    def outlook(self, model: Model, before: Sequence[Stage], preview: Preview) -> Model | None:
        """The student."""
        return self._expected_student(before, preview)

    def foresee(self, student: TorchModel, teachers: Sequence[Teacher], preview: Preview) -> Iterator[str]:
        """More to say, or to refuse, where student and teachers fit."""
        yield caching(self, self.terms_of(), student, teachers, preview)
        yield from taught(self.terms_of(), student, teachers)

    def control_of(self, student: TorchModel, ctx: Context, name: str) -> TorchModel:
        """The same student on labels alone, for as many steps."""
        return train(student, Supervised(ctx), self, ctx, name)

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The trained student; with what it is to be compared with."""
        teachers = open_teachers(self.teacher_configs(), self, model, ctx)
        source = _torch(teachers[0].model)
        student, name = self._grown(self.grow, teachers, model, ctx) if self.grow else (self.student, "training")
        students: list[TorchModel] = []
        for number in range(self.seeds):
            own, suffix = replace(ctx, seed=ctx.seed + number), f"_{number}" if number else ""
            torch.manual_seed(own.seed)
            start = student.build(source, model.example, model.axes, model)
            gpus = [torch.cuda.current_device()] if ctx.device.type == "cuda" else []
            with torch.random.fork_rng(gpus):  # so that the control draws the same noise
                trained_student = self.train_student(start, teachers, own, f"{name}{suffix}")
            if self.control:
                ctx.compare(f"control{suffix}", self.control_of(start, own, f"control{suffix}"))
            if students:
                ctx.compare(f"student{suffix}", trained_student)
            students.append(trained_student)
        softened = [term.softening(ctx.labelling.kind) for term in self.terms_of() if isinstance(term, LogitMethod)]
        diagnose(teachers, ctx, max(softened, default=None))
        return students[0]

    def train_student(self, student: TorchModel, teachers: Sequence[Teacher], ctx: Context, name: str) -> TorchModel:
        """The student after one training."""
        return train(student, Distillation(self.terms_of(), teachers, student, self, ctx), self, ctx, name)

    def teacher_configs(self) -> tuple[TeacherConfig, ...]:
        """The teachers of the settings."""
        return self.teachers or (TeacherConfig(use=self.teacher),)

    def _grown(self, grow: Grow, teachers: Sequence[Teacher], model: TorchModel, ctx: Context) -> tuple[Student, str]:
        """The smallest student after which a larger one brought little, and the name of its training, which is done."""
        rows: list[JsonValue] = []
        best, last = (self.student, "training"), -math.inf
        for size in grow.sizes:
            student, name = sized(self.student, grow.argument, size), f"{grow.argument}_{size}"
            torch.manual_seed(ctx.seed)
            start = student.build(_torch(teachers[0].model), model.example, model.axes, model)
            candidate = self.train_student(start, teachers, ctx, name)
            score = ctx.world.broadcast(mean_score(candidate, ctx.validation, decode=ctx.decode, score=ctx.score))
            rows.append({"size": size, "params": torch_params(candidate.module), "validation_score": score})
            if score - last < grow.tolerance:
                break
            best, last = (student, name), score
        ctx.report("grow", rows)
        return best

    def _expected(self, config: TeacherConfig, before: Sequence[Stage], preview: Preview) -> Model:
        """A teacher as far as it is known before the chain runs: its structure, trained or not."""
        if config.use == "baseline" and preview.in_baseline:
            raise ConfigError("there is no baseline yet", fix=NO_BASELINE)
        if not config.in_chain:
            return config.open(None, None, preview.model.example)
        earlier = [stage for stage in before if isinstance(stage, Distilling)]
        if config.use == "baseline" or not earlier:
            return preview.model
        last = earlier[-1]
        return last._expected_student(before[: before.index(last)], preview)

    def _expected_student(self, before: Sequence[Stage], preview: Preview, *, smallest: bool = False) -> TorchModel:
        """The student as far as it is known before the chain runs; of several sizes the largest or the smallest."""
        student = self.student
        if self.grow:
            student = sized(student, self.grow.argument, self.grow.sizes[0 if smallest else -1])
        source = _torch(self._expected(self.teacher_configs()[0], before, preview))
        incoming = _torch(self._expected(INCOMING, before, preview)) if student.use == "incoming" else None
        axes = preview.model.axes if isinstance(preview.model, TorchModel) else {}
        return student.build(source, preview.model.example, axes, incoming)


class SingleMethod(Distilling):
    """A method beside the labels: hard_weight * labels + (1 - hard_weight) * method."""

    term: ClassVar[type[Term]]

    hard_weight: float = Field(0.3, ge=0, le=1, description="weight of the labels; the teacher has the rest")

    def terms_of(self) -> tuple[Term, ...]:
        """The labels and the method, each where its weight is above zero."""
        own = type(self).model_fields.keys() & (self.term.model_fields.keys() - Schedule.model_fields.keys())
        method = self.term(weight=1 - self.hard_weight, **{name: getattr(self, name) for name in own})
        return tuple(term for term in (Labels(weight=self.hard_weight), method) if term.weight > 0)


def sized(student: Student, argument: str, size: int) -> Student:
    """The student with another size."""
    if argument == "layers":
        return student.model_copy(update={"layers": size})
    return student.model_copy(update={"arguments": {**student.arguments, argument: size}})


def _torch(model: Model) -> TorchModel | None:
    return model if isinstance(model, TorchModel) else None
