"""Features of hidden layers, as a term (FitNets)."""

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.errors import ConfigError
from stages.kd.inspection.hooks import Hook, require_layer
from stages.kd.losses.features import hint_loss, same_places
from stages.kd.terms.term import LayerMethod, ModelOutputs, Term, TermInputs

CONVOLUTIONS: dict[int, type[nn.Conv2d | nn.Conv3d]] = {4: nn.Conv2d, 5: nn.Conv3d}


class FeatureMethod(LayerMethod):
    """Compares the outputs of hidden layers; see `FeatureDistillation`."""

    layers: tuple[tuple[str, str], ...] = Field(
        min_length=1, description="pairs of names, [student's, teacher's]; their losses are added up"
    )
    normalize: bool = Field(False, description="compare the direction of each position's channels alone")
    mask: str | None = Field(None, description="the input (N, L) that is 0 at padding, for layers (N, L, D)")

    def watch(self, student: nn.Module, teacher: nn.Module) -> tuple[list[Hook], list[Hook]]:
        """The outputs of the named layers."""
        require_layers(student, teacher, self.layers)
        return [Hook(ours) for ours, _ in self.layers], [Hook(theirs) for _, theirs in self.layers]

    def adapter(self, student: ModelOutputs, teacher: ModelOutputs) -> nn.Module:
        """A regressor for each pair."""
        pairs = zip(self.layers, student.layers, teacher.layers, strict=True)
        return nn.ModuleList(regressor(ours, theirs, " and ".join(names)) for names, ours, theirs in pairs)

    def compare(self, student: ModelOutputs, teacher: ModelOutputs, adapter: nn.Module, inputs: TermInputs) -> Tensor:
        """The sum over the pairs."""
        losses = []
        for ours, theirs, regress in zip(student.layers, teacher.layers, adapter.children(), strict=True):
            mask = inputs.mask(self.mask) if ours.ndim == 3 else None
            pair = same_places(ours, theirs) if ours.ndim >= 4 else (ours, theirs)
            losses.append(hint_loss(regress(pair[0]), pair[1], mask=mask, normalize=self.normalize))
        return torch.stack(losses).sum()


class Features(FeatureMethod, Term):
    """The outputs of hidden layers."""


def require_layers(student: nn.Module, teacher: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    """Raise ConfigError, with the nearest names, where a pair names a layer that is not there."""
    for ours, theirs in pairs:
        require_layer(student, ours, "student")
        require_layer(teacher, theirs, "teacher")


def regressor(student: Tensor, teacher: Tensor, names: str = "the layers") -> nn.Module:
    """What gives a student's features as many channels as the teacher's: linear at each position.

    Where there are as many, nothing is between the two: the student itself then gives the teacher's features.

    Args:
        student, teacher: features as a batch gives them, see `hint_loss`.
        names: of the layers, for errors.

    Raises:
        ConfigError: features of another kind, or of another number of positions that cannot be averaged.
    """
    shapes = f"{names} give {tuple(student.shape)} and {tuple(teacher.shape)}"
    if student.ndim != teacher.ndim or not 2 <= student.ndim <= 5:
        expected = "both (N, D), (N, L, D), (N, C, H, W) or (N, C, D, H, W)"
        raise ConfigError(shapes, expected=expected, fix="Name layers of the same kind")
    if student.ndim == 3 and student.shape[1] != teacher.shape[1]:
        raise ConfigError(shapes, expected="as many positions", fix="Name layers that see the same tokens")
    axis = 1 if student.ndim >= 4 else -1
    ours, theirs = student.shape[axis], teacher.shape[axis]
    if ours == theirs:
        return nn.Identity()
    return CONVOLUTIONS[student.ndim](ours, theirs, 1) if student.ndim >= 4 else nn.Linear(ours, theirs)
