"""Logits, as a term: Hinton's loss, DKD and DIST."""

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.errors import ConfigError, StageError
from pipeline.stage import Preview
from stages.kd.losses.logits import averaged, decoupled_loss, dist_loss, expect_shape, soft_loss
from stages.kd.losses.sparse import sparse_soft_loss
from stages.kd.terms.term import Method, Term, TermInputs, refuse_strangers

HOT = 4  # temperature above which DIST's gradient, which grows with T^2, outweighs that of the labels
ONE_TEACHER = "`mass` keeps the largest classes of one teacher; there are {}"
OWN = {"dkd": ("target_weight", "rest_weight"), "dist": ("inter_weight", "intra_weight"), "kl": ("mass",)}


class LogitMethod(Method):
    """Compares logits; see `LogitDistillation`."""

    temperature: float = Field(default=4.0, gt=0, description="softens both distributions; 2 to 10 are usual")
    objective: Literal["kl", "dkd", "dist"] = Field(
        default="kl", description="Hinton's divergence; decoupled into target and rest; or correlations"
    )
    target_weight: float = Field(default=1.0, ge=0, description="dkd: of the target class's divergence")
    rest_weight: float = Field(default=8.0, ge=0, description="dkd: of the divergence among the other classes")
    inter_weight: float = Field(default=1.0, ge=0, description="dist: of the correlation between classes")
    intra_weight: float = Field(default=1.0, ge=0, description="dist: of the correlation within a class")
    axis: int = Field(default=-1, description="of the logits, where the classes are")
    mask: str | None = Field(
        default=None, description="the input that is 0 at padding; its shape is that of the logits without classes"
    )
    ignore: int | None = Field(
        default=None, description="positions whose target is this number, such as -100, do not count"
    )
    mass: float | None = Field(
        default=None, gt=0, le=1, description="kl: keep the teacher's largest classes up to this mass, such as 0.999"
    )

    @model_validator(mode="after")
    def _fitting(self) -> "LogitMethod":
        refuse_strangers(self, "objective", OWN)
        return self

    def check_models(self, student: nn.Module, teachers: Sequence[nn.Module], preview: Preview) -> Iterable[str]:
        """Refuses `mass` beside several teachers; warns of T = 1, and of a high T where the gradient grows with it."""
        if self.mass is not None and len(teachers) > 1:
            raise ConfigError(ONE_TEACHER.format(len(teachers)), fix="Leave `mass` out, or take one teacher")
        if self.temperature > HOT and self.objective == "dist":
            yield (
                f"temperature {self.temperature:g} with `objective: dist`: its gradient grows with T^2, unlike that of "
                "the others; lower T, or inter_weight and intra_weight"
            )
        if self.temperature == 1 and self.objective != "dist":
            yield "temperature 1 shows the student little beyond the best class; 2 to 10 are usual"

    def loss(self, inputs: TermInputs, adapters: Sequence[nn.Module]) -> Tensor:
        """The loss against the teachers' logits, taken as one teacher's."""
        student, mask = inputs.logits, self._counted(inputs)
        if sparse := inputs.teachers[0].sparse:
            if len(inputs.teachers) > 1:
                raise StageError(ONE_TEACHER.format(len(inputs.teachers)), fix="Leave `mass` out")
            return sparse_soft_loss(student, sparse, self.temperature, axis=self.axis, mask=mask)
        teacher = self._teacher_logits(inputs)
        if student.shape != teacher.shape:
            problem = f"the student gives logits {tuple(student.shape)}, the teacher {tuple(teacher.shape)}"
            raise StageError(problem, expected="the same shape", fix="Give the student the teacher's number of classes")
        if self.objective == "dkd":
            weights = {"target_weight": self.target_weight, "rest_weight": self.rest_weight}
            targets = inputs.batch.targets
            return decoupled_loss(student, teacher, targets, self.temperature, axis=self.axis, mask=mask, **weights)
        if self.objective == "dist":
            weights = {"inter_weight": self.inter_weight, "intra_weight": self.intra_weight}
            return dist_loss(student, teacher, self.temperature, axis=self.axis, mask=mask, **weights)
        return soft_loss(student, teacher, self.temperature, axis=self.axis, mask=mask)

    def _counted(self, inputs: TermInputs) -> Tensor | None:
        """Which positions count: those that are no padding by the mask and by the targets; None for all."""
        mask = inputs.mask(self.mask)
        if self.ignore is None:
            return mask
        if not isinstance(inputs.batch.targets, Tensor):
            problem = f"the targets are a {type(inputs.batch.targets).__name__}"
            raise StageError(problem, where="ignore", expected="a tensor", fix="Use `mask` instead")
        counted = inputs.batch.targets != self.ignore
        if mask is None:
            return counted
        expect_shape("mask", mask, counted.shape)
        return counted & (mask.to(counted.device) != 0)

    def _teacher_logits(self, inputs: TermInputs) -> Tensor:
        logits = [teacher.logits for teacher in inputs.teachers]
        if len(logits) == 1:
            return logits[0]
        return averaged(logits, inputs.shares, how=inputs.average, temperature=self.temperature, axis=self.axis)


class Logits(LogitMethod, Term):
    """The teachers' softened logits."""
