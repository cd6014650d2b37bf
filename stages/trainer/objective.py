"""What a training minimizes: labels here, a teacher's knowledge in `stages.kd.objective`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.base.batches import Outputs
from pipeline.context import Context
from pipeline.errors import StageError, blame
from pipeline.task import Batch, kind, scored


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Args:
        epoch: from 0.
        view: which augmentation of the examples is shown; the epoch, unless the objective has fewer `views`.
        done: share of all steps that are done, 0 to 1.
    """

    epoch: int = 0
    view: int = 0
    done: float = 0.0


class Objective(nn.Module, ABC):
    """A loss of a training. Its own parameters, such as adapters, are trained along and then thrown away.

    `views` is the number of augmentations to go round in; None shows another one in each epoch.
    """

    views: int | None = None
    keeps_last: bool = False
    """Whether a training gives the weights of its last epoch, whatever their score: its loss is another by then."""

    def watch(self, student: nn.Module) -> None:  # most objectives see outputs alone
        """Called once with the module that is trained, for objectives that look inside it."""

    def unwatch(self) -> None:
        """Called when the training is over: the module is as it was."""

    @abstractmethod
    def forward(self, batch: Batch, outputs: Outputs, progress: Progress) -> Tensor:
        """The scalar loss of a batch, given the trained model's outputs on it."""


class Supervised(Objective):
    """The task's loss against the labels."""

    def __init__(self, ctx: Context) -> None:
        super().__init__()
        self.loss = ctx.loss

    def forward(self, batch: Batch, outputs: Outputs, progress: Progress) -> Tensor:
        """The task's loss. Raises StageError where it fails or is not a scalar."""
        with blame(StageError, "the task's loss", fix="Look at the targets' range and shape"):
            return scalar(self.loss(outputs, batch.targets))


def scalar(loss: Tensor) -> Tensor:
    """The loss itself. Raises StageError when it is not a scalar."""
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        raise StageError(f"the loss is {kind(loss)}", expected="a scalar tensor", fix="Reduce it, such as by .mean()")
    return loss


def first(outputs: Outputs) -> Tensor:
    """The first output: by convention the logits; see `logits_first`."""
    return next(iter(outputs.values()))


def logits_first(outputs: Outputs, name: str | None) -> Outputs:
    """The outputs with the one of that name first, for it is the logits. Raises ConfigError where there is none."""
    return outputs if name is None else {name: scored(outputs, name), **outputs}
