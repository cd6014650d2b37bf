"""What a term of a distillation's loss is, and its inputs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from pipeline.base.batches import Outputs
from pipeline.base.data.strict import Strict
from pipeline.base.targets.labelling import Kind, Labelling
from pipeline.context import Preview
from pipeline.errors import StageError
from pipeline.task import Batch
from stages.kd.inspection.hooks import Hook
from stages.kd.losses.sparse import Sparse


@dataclass(frozen=True)
class ModelOutputs:
    """One model on one batch.

    Args:
        outputs: by name; the first is the logits. Of a teacher whose logits are cached, these alone.
        layers: what the term's hooks read, in their order.
        sparse: a teacher's largest probabilities, where these alone are cached; then there are no outputs.
    """

    outputs: Outputs
    layers: tuple[Any, ...] = ()
    sparse: Sparse | None = None

    @property
    def logits(self) -> Tensor:
        """The first output."""
        return next(iter(self.outputs.values()))


@dataclass(frozen=True)
class TermInputs:
    """All that a term's loss is made of.

    Args:
        batch: of the training split.
        outputs: the student's; the first is its logits.
        students, teachers: for each teacher, what the student shows beside it, and what it gave itself.
        shares: the teachers' weights, 1 together.
        average: how several teachers' logits become one.
        hard_loss: the task's loss of outputs against targets.
        labelling: the task's: where the classes of its logits are, and which targets count.
    """

    batch: Batch
    outputs: Outputs
    students: tuple[ModelOutputs, ...]
    teachers: tuple[ModelOutputs, ...]
    shares: tuple[float, ...]
    average: Literal["logits", "probabilities"]
    hard_loss: Callable[[Outputs, Any], Tensor]
    labelling: Labelling = field(default_factory=Labelling)

    @property
    def logits(self) -> Tensor:
        """The student's."""
        return next(iter(self.outputs.values()))

    def mask(self, name: str | None) -> Tensor | None:
        """The input that says what counts and what is padding. Raises StageError where there is no such input."""
        if name is None:
            return None
        if name not in self.batch.inputs:
            raise StageError(f"there is no input `{name}`", expected=f"one of {sorted(self.batch.inputs)}")
        return self.batch.inputs[name]


class Settings(Strict):
    """Frozen and strict; the keys of a term in a config."""


def refuse_strangers(settings: BaseModel, choice: str, own: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError where a setting differs from its default that is of use for another choice alone.

    Args:
        settings: of a method.
        choice: the setting that decides which others are of use.
        own: for each of its values the settings that are of use for it alone.
    """
    chosen = getattr(settings, choice)
    for value, names in own.items():
        overrides = [name for name in names if getattr(settings, name) != type(settings).model_fields[name].default]
        if overrides and value != chosen:
            raise ValueError(f"`{overrides[0]}` is for `{choice}: {value}`, not {chosen}")


class Method(Settings, ABC):
    """How a student is compared with its teachers: a loss, and what it needs to see. Shared by terms and stages."""

    needs_teacher: ClassVar[bool] = True

    def refusal(self, kind: Kind) -> tuple[str, str] | None:
        """What cannot work in a task of that kind, and what to do instead; None where it can."""
        return None

    def check_models(self, student: nn.Module, teachers: Sequence[nn.Module], preview: Preview) -> Iterable[str]:
        """Refuse what cannot work with ConfigError, warn of what is suspicious. Modules may be untrained."""
        return ()

    def watch(self, student: nn.Module, teacher: nn.Module) -> tuple[list[Hook], list[Hook]]:
        """What to read inside the student and inside a teacher; nothing unless the method looks at layers."""
        return [], []

    def adapter(self, student: ModelOutputs, teacher: ModelOutputs) -> nn.Module:
        """A trained part between the two, made for one teacher's shapes; it never reaches the saved model."""
        return nn.Identity()

    @abstractmethod
    def loss(self, inputs: TermInputs, adapters: Sequence[nn.Module]) -> Tensor:
        """The scalar loss of a batch, with an adapter for each teacher."""


class LayerMethod(Method):
    """A method that compares layers with one teacher at a time."""

    def check_models(self, student: nn.Module, teachers: Sequence[nn.Module], preview: Preview) -> Iterable[str]:
        """Refuses layers that are not there or do not fit."""
        for teacher in teachers:
            self.watch(student, teacher)
        return ()

    def loss(self, inputs: TermInputs, adapters: Sequence[nn.Module]) -> Tensor:
        """The mean over the teachers by their shares."""
        total = inputs.logits.new_zeros(())
        rows = zip(inputs.shares, inputs.students, inputs.teachers, adapters, strict=True)
        for share, student, teacher, adapter in rows:
            total = total + share * self.compare(student, teacher, adapter, inputs)
        return total

    @abstractmethod
    def compare(self, student: ModelOutputs, teacher: ModelOutputs, adapter: nn.Module, inputs: TermInputs) -> Tensor:
        """The loss against one teacher."""


class Schedule(Settings):
    """When and how strongly a term counts."""

    weight: float = Field(default=1.0, ge=0, description="factor of this term")
    start: float = Field(default=0.0, ge=0, lt=1, description="share of the training after which it counts")
    end: float = Field(default=1.0, gt=0, le=1, description="share of the training until which it counts")
    ramp: Literal["none", "up", "down"] = Field(default="none", description="weight rises from 0, or falls to 0")

    @model_validator(mode="after")
    def _ordered(self) -> "Schedule":
        if self.start >= self.end:
            raise ValueError(f"`start` {self.start:g} is not before `end` {self.end:g}")
        return self

    def weight_at(self, done: float) -> float:
        """The weight where this share of the training, 0 to 1, is done."""
        if not self.start <= done < self.end:
            return 0.0
        part = (done - self.start) / (self.end - self.start)
        return self.weight * {"none": 1.0, "up": part, "down": 1.0 - part}[self.ramp]


class Term(Schedule, Method):
    """A method with its weight and schedule: what `terms:` lists."""

    use: str = Field(default="", description="which term: a file of stages/terms, or one of yours")
