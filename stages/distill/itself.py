"""Self-distillation over generations."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, JsonValue

from pipeline.context import Context
from pipeline.measure.accuracy import mean_score
from pipeline.model import TorchModel
from stages.kd.stage import SingleMethod
from stages.kd.student import Student
from stages.kd.teacher import Teacher
from stages.kd.teacher_config import TeacherConfig
from stages.kd.terms.logits import LogitMethod, Logits
from stages.kd.terms.term import Term
from stages.trainer.loop import train
from stages.trainer.objective import Supervised


class SelfDistillation(LogitMethod, SingleMethod):
    """A model of the teacher's own structure, trained on its logits, generation after generation.

    Choose it where the model may not become smaller and accuracy is wanted: a generation often does better than the
    one before, for as much training. `teachers: [{use: models.py:Net, weights: early.safetensors}]` learns from an
    earlier checkpoint.

    Example:
        - {use: distill.itself, generations: 3, temperature: 2, epochs: 30}

    Reference:
        Furlanello, Lipton, Tschannen, Itti and Anandkumar: Born-Again Neural Networks, 2018, 1805.04770, section 3.
    """

    term: ClassVar[type[Term]] = Logits

    student: Student = Field(Student(use="teacher"), description="its structure: the teacher's own unless given")
    generations: int = Field(3, gt=0, description="each learns from the one before, the first from the teacher")
    keep: Literal["best", "last"] = Field("best", description="the generation to give, by validation score")

    def trainings(self) -> Iterable[tuple[int, int]]:
        """One for each generation of each student; see `Stage.trainings`."""
        return [*super().trainings()] * self.generations

    def control_of(self, student: TorchModel, ctx: Context, name: str) -> TorchModel:
        """The same structure on labels alone, for as many steps as all generations together."""
        longer = self.model_copy(update={"epochs": self.epochs * self.generations})
        return train(student, Supervised(ctx), longer, ctx, name)

    def train_student(self, student: TorchModel, teachers: Sequence[Teacher], ctx: Context, name: str) -> TorchModel:
        """The last or the best generation; each begins anew with a seed of its own."""
        rows: list[JsonValue] = []
        source = teachers[0].model if isinstance(teachers[0].model, TorchModel) else student
        best: tuple[float, TorchModel] | None = None
        for number in range(1, self.generations + 1):
            own = replace(ctx, seed=ctx.seed + 1000 * (number - 1))
            torch.manual_seed(own.seed)
            start = student if number == 1 else self.student.build(source, student.example, student.axes)
            generation = super().train_student(start, teachers, own, f"{name}_generation_{number}")
            score = ctx.world.broadcast(mean_score(generation, ctx.validation, decode=ctx.decode, score=ctx.score))
            rows.append({"generation": number, "validation_score": score})
            if best is None or score > best[0] or self.keep == "last":
                best = score, generation
            teachers = [Teacher(TeacherConfig(use="incoming"), generation, ctx, precision=teachers[0].precision)]
        ctx.report(f"{name}_generations", rows)
        return best[1] if best else student
