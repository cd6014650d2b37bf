"""Logits, as a term: Hinton's loss, DKD and DIST."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.base.targets.labelling import Kind, Labelling
from pipeline.context import Preview
from pipeline.errors import ConfigError, StageError
from pipeline.task import kind as kind_of_value
from stages.kd.losses.logits import averaged, decoupled_loss, dist_loss, expect_shape, positions, soft_loss
from stages.kd.losses.sparse import sparse_soft_loss
from stages.kd.terms.term import Method, Term, TermInputs, refuse_strangers

SOFT, SHARP = 4.0, 0.5  # temperatures for one class of several, and for labels that are decided one by one
HOT = 4  # temperature above which DIST's gradient, which grows with T^2, outweighs that of the labels
ONE_TEACHER = "`mass` keeps the largest classes of one teacher; there are {}"
OWN = {"dkd": ("target_weight", "rest_weight"), "dist": ("inter_weight", "intra_weight"), "kl": ("mass",)}


class LogitMethod(Method):
    """Compares logits; see `LogitDistillation`."""

    temperature: float | None = Field(
        default=None,
        gt=0,
        description="softens both distributions; 2 to 10 are usual; null: 4, multi-label tasks 0.5",
    )
    objective: Literal["kl", "dkd", "dist"] = Field(
        default="kl", description="Hinton's divergence; decoupled into target and rest; or correlations"
    )
    target_weight: float = Field(default=1.0, ge=0, description="dkd: of the target class's divergence")
    rest_weight: float = Field(default=8.0, ge=0, description="dkd: of the divergence among the other classes")
    inter_weight: float = Field(default=1.0, ge=0, description="dist: of the correlation between classes")
    intra_weight: float = Field(default=1.0, ge=0, description="dist: of the correlation within a class")
    axis: int | None = Field(
        default=None, description="of the logits, where the classes are; null: as the shape of the targets tells"
    )
    mask: str | None = Field(
        default=None, description="the input that is 0 at padding; its shape is that of the logits without classes"
    )
    ignore: int | None = Field(
        default=None, description="positions whose target is this number do not count; null: the task's ignore_index"
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
        kind = preview.labelling.kind
        temperature = self.softening(kind)
        if kind == "multi_label" and temperature > 1:
            yield f"temperature {temperature:g} for labels that are decided one by one; 0.5 to 1 are usual"
        if temperature > HOT and self.objective == "dist":
            yield (
                f"temperature {temperature:g} with `objective: dist`: its gradient grows with T^2, unlike that of "
                "the others; lower T, or inter_weight and intra_weight"
            )
        if temperature == 1 and self.objective != "dist" and kind != "multi_label":
            yield "temperature 1 shows the student little beyond the best class; 2 to 10 are usual"

    def refusal(self, kind: Kind) -> tuple[str, str] | None:
        """kl takes all with logits; dkd takes one class an example or position, and dist and `mass` a softmax's."""
        if kind == "regression":
            return "there are no logits to distill in a regression", "Use distill.features, or train.supervised"
        wants = f"`objective: {self.objective}`" if self.objective != "kl" else "`mass`" if self.mass else ""
        if wants and (kind == "multi_label" or (kind == "other" and self.objective == "dkd")):
            problem = f"{wants} takes tasks of one class an example or position (single_label, dense)"
            fix = "Leave `mass` out" if wants == "`mass`" else "Use `objective: kl`, which takes this one too"
            how = "set `target_kind` in the Task" if kind == "multi_label" else "give class numbers as targets"
            return problem, f"{fix}; where it is of one class, {how}"
        return None

    def softening(self, kind: Kind) -> float:
        """The temperature in a task of that kind.

        A label that is decided by itself has no wrong classes, whose order is what a temperature shows. Yang et al.,
        2308.06453, have 1; a sharper teacher did better in our trials, and a softer one worse than labels alone.
        """
        return self.temperature or (SHARP if kind == "multi_label" else SOFT)

    def labelling_of(self, task: Labelling) -> Labelling:
        """The task's, with the axis and the target that does not count as they are set here."""
        changes: dict[str, Any] = {} if self.axis is None else {"axis": self.axis}
        if self.ignore is not None:
            changes |= {"ignore_index": self.ignore, "kind": "dense" if task.kind == "other" else task.kind}
        return replace(task, **changes)

    def loss(self, inputs: TermInputs, adapters: Sequence[nn.Module]) -> Tensor:
        """The loss against the teachers' logits, taken as one teacher's."""
        labelling = self.labelling_of(inputs.labelling)
        temperature = self.softening(labelling.kind)
        mask = self._counted(inputs, labelling)
        if sparse := inputs.teachers[0].sparse:
            if len(inputs.teachers) > 1:
                raise StageError(ONE_TEACHER.format(len(inputs.teachers)), fix="Leave `mass` out")
            return sparse_soft_loss(inputs.logits, sparse, temperature, axis=labelling.axis, mask=mask)
        student, teacher = self._logits(inputs, labelling)
        if self.objective == "dkd":
            numbers = labelling.numbers(inputs.logits, inputs.batch.targets)
            if numbers is None:
                problem = f"the targets are {kind_of_value(inputs.batch.targets)}"
                fix = "Use `objective: kl`, or give the task numbers of classes as targets"
                raise StageError(problem, where="objective: dkd", expected="a class for each position", fix=fix)
            parts = {"target_weight": self.target_weight, "rest_weight": self.rest_weight}
            return decoupled_loss(student, teacher, numbers, temperature, axis=-1, mask=mask, **parts)
        if self.objective == "dist":
            weights = {"inter_weight": self.inter_weight, "intra_weight": self.intra_weight}
            return dist_loss(student, teacher, temperature, axis=-1, mask=mask, **weights)
        return soft_loss(student, teacher, temperature, mask=mask)

    def _counted(self, inputs: TermInputs, labelling: Labelling) -> Tensor | None:
        """Which positions count: those that are no padding by the mask and by the targets; None for all."""
        mask, targets = inputs.mask(self.mask), inputs.batch.targets
        counted = labelling.counted(inputs.logits, targets)
        if self.ignore is not None and counted is None:
            expected = f"a tensor {positions(inputs.logits, labelling.axis)}"
            problem = f"the targets are {kind_of_value(targets)}"
            raise StageError(problem, where="ignore", expected=expected, fix="Use `mask` instead")
        if mask is None or counted is None:
            return counted if mask is None else mask
        expect_shape("mask", mask, counted.shape)
        return counted & (mask.to(counted.device) != 0)

    def _logits(self, inputs: TermInputs, labelling: Labelling) -> tuple[Tensor, Tensor]:
        """The student's and those of all teachers as one, with the classes last."""
        logits = [teacher.logits for teacher in inputs.teachers]
        for other in logits:
            if other.shape != inputs.logits.shape:
                problem = f"the student gives logits {tuple(inputs.logits.shape)}, the teacher {tuple(other.shape)}"
                fix = "Give the student the teacher's number of classes"
                raise StageError(problem, expected="the same shape", fix=fix)
        student, *teachers = (labelling.logits(values) for values in (inputs.logits, *logits))
        if len(teachers) == 1:
            return student, teachers[0]
        temperature = self.softening(labelling.kind)
        return student, averaged(teachers, inputs.shares, how=inputs.average, temperature=temperature)


class Logits(LogitMethod, Term):
    """The teachers' softened logits."""
