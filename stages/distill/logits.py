"""Distillation of logits."""

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from pipeline.errors import ConfigError, StageError
from pipeline.measure.cost import torch_params
from pipeline.model import Model, TorchModel
from pipeline.stage import Context, Outlook, Stage
from pipeline.use import Reference
from stages.objectives import distill, first
from stages.training import TrainingSettings, train

SMALLEST_SHARE = 0.1
NO_LOGITS = "Train the small model with train.supervised, or give the task logits"


class LogitDistillation(TrainingSettings, Stage):
    """A new, small student trained on the teacher's softened logits and on the labels.

    Choose it first in a chain: nothing else makes a model ten or more times smaller at so little loss. The student
    may be of any architecture that gives logits of the teacher's shape.

    Example:
        - {use: distill.logits, student: {use: models.py:SmallNet, width: 16}, temperature: 4, epochs: 60}

    Reference:
        Hinton, Vinyals and Dean: Distilling the Knowledge in a Neural Network, 2015, 1503.02531, section 2.
    """

    student: Reference = Field(description="builds the student, such as {use: models.py:SmallNet, width: 16}")
    teacher: Literal["incoming", "baseline"] = Field(
        default="incoming", description="the model that comes in, or the baseline"
    )
    temperature: float = Field(default=4.0, gt=0, description="softens both distributions; 2 to 10 are usual")
    hard_weight: float = Field(default=0.3, ge=0, le=1, description="weight of the labels; the teacher has the rest")

    def check(self, before: Sequence[Stage], outlook: Outlook) -> Iterable[str]:
        """Refuses logits of another shape; warns of T = 1 and of a student far smaller than its teacher."""
        if not outlook.logits:
            raise ConfigError("the task's predictions are no logits", expected="Task(logits=True)", fix=NO_LOGITS)
        if self.teacher == "baseline" and outlook.in_baseline:
            raise ConfigError("there is no baseline yet", fix="Use teacher: incoming inside `baseline:`")
        if self.temperature == 1:
            yield "temperature 1 shows the student little beyond the best class; 2 to 10 are usual"
        student = TorchModel.build(self.student, outlook.model.example)
        teacher = self._expected_teacher(before, outlook)
        if teacher is None:
            return
        shapes = [tuple(first(m.predict(m.example)).shape) for m in (student, teacher)]
        if shapes[0] != shapes[1]:
            raise ConfigError(f"the student gives logits {shapes[0]}", expected=f"{shapes[1]}, as the teacher gives")
        sizes = [torch_params(m.module) for m in (student, teacher)]
        if sizes[0] < SMALLEST_SHARE * sizes[1]:
            yield (
                f"the student has {sizes[0]:,} parameters, {sizes[0] / sizes[1]:.1%} of the teacher's {sizes[1]:,}; "
                f"below {SMALLEST_SHARE:.0%} it may be too small to follow: compare with a wider one"
            )

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The trained student."""
        teacher: Model | None = model if self.teacher == "incoming" else ctx.baseline
        if teacher is None:
            raise StageError("there is no baseline yet", fix="Use teacher: incoming inside `baseline:`")
        student = TorchModel.build(self.student, model.example)
        objective = distill(teacher, ctx, temperature=self.temperature, hard_weight=self.hard_weight)
        return train(student, objective, self, ctx)

    def _expected_teacher(self, before: Sequence[Stage], outlook: Outlook) -> TorchModel | None:
        """The teacher's structure, untrained, as far as it is known before the chain runs."""
        if not isinstance(outlook.model, TorchModel):
            return None
        earlier = [stage for stage in before if isinstance(stage, LogitDistillation)]
        if self.teacher == "baseline" or not earlier:
            return outlook.model
        return TorchModel.build(earlier[-1].student, outlook.model.example)
