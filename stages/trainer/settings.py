"""How to train: the settings of every training stage; the optimizer, schedule and accelerator that they name."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim import lr_scheduler

from pipeline.base.data.strict import Strict
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.forms.layers import aside

if TYPE_CHECKING:
    from accelerate import Accelerator


class TrainingSettings(Strict):
    """How to train; the settings of every stage that does."""

    distributed: ClassVar[bool] = True
    """Whether a stage with these settings runs in every process; see `Stage.distributed`."""

    epochs: int = Field(20, gt=0, description="passes over the training split")
    batch_size: int = Field(64, gt=0, description="examples a step, over all processes")
    learning_rate: float = Field(1e-3, gt=0, description="its peak, after warm-up")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd has Nesterov momentum 0.9")
    weight_decay: float = Field(0.01, ge=0, description="decoupled with adamw")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="after warm-up, to zero")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps that the rate takes to rise")
    gradient_clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient; null for none")
    patience: int | None = Field(None, gt=0, description="stop after so many epochs without a better score")
    checkpoint_epochs: int = Field(1, gt=0, description="epochs between checkpoints, to go on after a kill")
    workers: int = Field(0, ge=0, description="processes that load data")
    accumulate: int = Field(
        1,
        gt=0,
        description="parts that a step's batch is computed in, to save memory; each counts alike, whatever is masked",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of the arithmetic; auto: bf16 or fp16 on a GPU, fp32 on a CPU"
    )
    channels_last: bool = Field(
        False,
        description="keep images and the weights of convolutions in memory as NHWC: often faster, for some slower, "
        "so measure; a module that calls `view` on what a convolution gives fails, `flatten` works",
    )

    def trainings(self) -> Iterable[tuple[int, int]]:
        """Its batch size and the parts of a batch; see `Stage.trainings`."""
        return [(self.batch_size, self.accumulate)]


def make_optimizer(module: nn.Module, settings: TrainingSettings) -> Any:
    """The optimizer that the settings name, over all that want gradients; steps of quantizers do not decay."""
    trained_parameters = [p for p in module.parameters() if p.requires_grad]
    scales = {id(p) for p in aside(module)}
    parameters: Any = trained_parameters
    if scales:
        parts = ([p for p in trained_parameters if (id(p) in scales) == is_scale] for is_scale in (False, True))
        parameters = [{"params": next(parts)}, {"params": next(parts), "weight_decay": 0.0}]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)


def make_schedule(optimizer: Any, settings: TrainingSettings, steps: int) -> lr_scheduler.LRScheduler:
    """Linear warm-up to the peak, then cosine or linear decay to zero, or none, over `steps` in all."""
    rise = math.ceil(settings.warmup * steps)
    fall = max(steps - rise, 1)
    after: lr_scheduler.LRScheduler
    if settings.schedule == "cosine":
        after = lr_scheduler.CosineAnnealingLR(optimizer, T_max=fall)
    else:
        end = 0.0 if settings.schedule == "linear" else 1.0
        after = lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=end, total_iters=fall)
    if not rise:
        return after
    before = lr_scheduler.LinearLR(optimizer, start_factor=1 / (rise + 1), total_iters=rise)
    return lr_scheduler.SequentialLR(optimizer, [before, after], milestones=[rise])


def lay_out(module: nn.Module, layout: torch.memory_format) -> None:
    """Put the four-dimensional weights and buffers of a module into a memory format, in place; the values stay.

    A convolution gives what its weights are laid out as, so that activations follow.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)


def mixed_precision(settings: TrainingSettings, device: torch.device) -> str:
    """What Accelerate calls the arithmetic: "no", "bf16" or "fp16". Raises StageError where the device has it not."""
    precision, gpu = settings.precision, device.type == "cuda"
    if precision == "auto":
        return ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16") if gpu else "no"
    if precision == "fp16" and not gpu:
        raise StageError("`precision` is fp16 on a CPU", expected="a GPU for fp16", fix="Use bf16, fp32 or auto")
    return "no" if precision == "fp32" else precision


def make_accelerator(settings: TrainingSettings, ctx: Context) -> "Accelerator":
    """Where and how precisely to compute. Raises StageError for settings that do not fit device or processes."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    parts = ctx.world.size * settings.accumulate
    if settings.batch_size % parts:
        fix = f"Use a multiple of {parts}"
        raise StageError(f"a batch of {settings.batch_size} cannot be split into {parts} equal parts", fix=fix)
    if ctx.world.size == 1 and torch.distributed.is_initialized():
        raise StageError("it trains, and is not `distributed`", fix="Write `distributed: ClassVar[bool] = True` in it")
    AcceleratorState._reset_state(reset_partial_state=True)  # precision and processes are the stage's
    cpu = ctx.device.type == "cpu"
    kwargs_handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    return Accelerator(cpu=cpu, mixed_precision=mixed_precision(settings, ctx.device), kwargs_handlers=kwargs_handlers)
