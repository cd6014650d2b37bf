"""What stages that prune have in common: one target, weights that are not quantized, and training afterwards."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator
from torch import nn

from pipeline.base.data.strict import Strict
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, ShrinkError, StageError
from pipeline.forms.layers import aside
from pipeline.model import TorchModel
from pipeline.stage import Stage, quantizing
from stages.kd.teacher import Teacher
from stages.prune.allocation.search import Scope
from stages.prune.training.preparing import Preparation
from stages.prune.training.recovery import Recovery

SHARES = ("macs", "params", "size", "latency")


def _one_target(schema: dict[str, Any], stage: type["Pruning"]) -> None:
    schema["oneOf"] = [{"required": [target]} for target in stage.targets]


def quantized(stage: type, error: type[ShrinkError]) -> ShrinkError:
    """The error of a stage that wants other weights than quantized ones."""
    fix = f"Put {stage.__module__.removeprefix('stages.')} before quantize.aware"
    return error("the weights are quantized, with steps for the layers that they are in", fix=fix)


class Pruning(Strict):
    """Settings of a stage that prunes; it goes before `Stage` among the bases."""

    distributed: ClassVar[bool] = True
    """Whether a stage with these settings runs in every process; see `Stage.distributed`."""
    targets: ClassVar[tuple[str, ...]]
    """Names of the settings of which exactly one is set, the first of them a share."""

    model_config = ConfigDict(json_schema_extra=_one_target)

    recovery: Recovery | None = Field(None, description="train afterwards; with `steps` epochs are divided among them")

    @model_validator(mode="after")
    def _with_one_target(self) -> Self:
        if sum(getattr(self, target) is not None for target in self.targets) != 1:
            names = ", ".join(f"`{target}`" for target in self.targets)
            raise ValueError(f"expected exactly one target of {names}, such as `{self.targets[0]}: 0.5`")
        return self

    @property
    def _target(self) -> tuple[str, Any]:
        """The target that is set, with its value."""
        pairs = ((target, getattr(self, target)) for target in self.targets)
        return next((target, value) for target, value in pairs if value is not None)

    def trainings(self) -> Iterable[tuple[int, int]]:
        """Those of its recovery; see `Stage.trainings`."""
        return self.recovery.trainings() if self.recovery else ()

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse quantized weights, and teachers that are not there; see `Stage.check`."""
        self._expect_floats_behind(before)
        if self.recovery:
            yield from self.recovery.check_teachers(preview, known=not before, name="recovery")

    def _expect_floats_behind(self, before: Sequence[Stage]) -> None:
        """Raise ConfigError where the weights will be quantized."""
        if quantizing(before):
            raise self._quantized(ConfigError)

    def _expect_floats(self, module: nn.Module) -> None:
        """Raise StageError where the weights are quantized."""
        if aside(module):
            raise self._quantized(StageError)

    def _quantized(self, error: type[ShrinkError]) -> ShrinkError:
        return quantized(type(self), error)


class Teachers(NamedTuple):
    """Who teaches before the cut and after it; nobody where there is no such training."""

    before: list[Teacher]
    after: list[Teacher]


class Narrowing(Pruning):
    """Settings of a stage that makes layers narrower."""

    narrows: ClassVar[bool] = True
    """See `Stage.narrows`."""

    macs: float | None = Field(None, gt=0, lt=1, description="share of the MACs kept, at most")
    params: float | None = Field(None, gt=0, lt=1, description="share of the parameters kept, at most")
    size: float | None = Field(None, gt=0, lt=1, description="share of the bytes of the fp32 file kept, at most")
    latency: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share kept, at most, of the time of one example in ONNX Runtime on one thread of this machine",
    )
    scope: Scope = Field(
        "uniform",
        description="uniform: the same share of each layer; global: all channels ranked together, where a head of "
        "attention counts as one; sensitivity: each layer as far as the answers bear it, which is measured on "
        "calibration data",
    )
    steps: int = Field(1, gt=0, description="prune gradually; importance is measured again at each step")
    round_to: int = Field(
        8,
        gt=0,
        description="pruned widths, also of all heads together, are multiples of it, as kernels like; layers no wider "
        "stay as they are",
    )
    ignore: tuple[str, ...] = Field(
        (), description="layers, or parts with layers, whose output channels stay; with * for any letters"
    )
    prepare: Preparation | None = Field(
        None, description="train before the cut so that channels that can leave become small (group lasso)"
    )

    @model_validator(mode="after")
    def _with_epochs_for_steps(self) -> Self:
        if self.recovery:
            self.recovery.check_steps(self.steps)
        return self

    def trainings(self) -> Iterable[tuple[int, int]]:
        """That before the cut, and one after each step; see `Stage.trainings`."""
        before = self.prepare.trainings() if self.prepare else ()
        return [*before, *[*super().trainings()] * self.steps]

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse quantized weights, and teachers that are not there; see `Stage.check`."""
        yield from super().check(before, preview)
        if self.prepare:
            yield from self.prepare.check_teachers(preview, known=not before, name="prepare")

    def _teachers(self, model: TorchModel, ctx: Context) -> Teachers:
        """Those of its trainings, of the model that came in."""
        return Teachers(*(one.open(model, ctx) if one else [] for one in (self.prepare, self.recovery)))

    @property
    def _is_measured(self) -> bool:
        """Whether the target is one of the file to deploy."""
        return self.size is not None or self.latency is not None
