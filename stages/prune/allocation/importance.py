"""Which channels matter: by their weights, by what the task's loss says of them, or by what they carry."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.model import TorchModel
from stages.prune.allocation.signals import gradients, magnitudes_read, squared_gradients
from stages.prune.allocation.slices import NORMS, by_label, slices, weighted
from stages.prune.coupling.cells import Cell, State
from stages.prune.coupling.coupled import Coupled, side_by_side
from stages.prune.coupling.parts import LAYERS, Place, known

Importance = Literal["magnitude", "l1", "batch_norm", "lamp", "fpgm", "taylor", "hessian", "activation", "random"]
IMPORTANCE = (
    "which channels matter. magnitude: squares of the weights; l1: absolute ones; batch_norm: scales of normalization; "
    "lamp: squares over those of channels that matter more, for scope: global; fpgm: distance to the other filters; "
    "random. On calibration data taylor: gradient times weight; hessian: squares of both, an example at a time; "
    "activation: what layers read"
)
READS_DATA = ("taylor", "hessian", "activation")
LOSS = ("taylor", "hessian")

Measure = Callable[[Tensor, Tensor], Tensor]
"""(channels, numbers) weights, and what stands in their gradients -> (channels,)."""

MEASURES: dict[str, Measure] = {
    "magnitude": lambda weights, _: weights.square().sum(1),
    "l1": lambda weights, _: weights.abs().sum(1),
    "batch_norm": lambda weights, _: weights.abs().sum(1),
    "lamp": lambda weights, _: weights.square().sum(1),
    "fpgm": lambda weights, _: torch.cdist(weights, weights).sum(1),
    "taylor": lambda weights, gradients: (weights * gradients).abs().sum(1),
    "hessian": lambda weights, squares: (weights.square() * squares).sum(1),
}


def with_importance(
    groups: Sequence[Coupled], model: TorchModel, importance: Importance, ctx: Context
) -> list[Coupled]:
    """The groups with the importance of their channels, of mean 1 in each group but for lamp; of members, of each.

    Args:
        groups: of the model's module.
        model: not changed.
        importance: which.
        ctx: its calibration data and loss are read where the importance asks for them.

    Raises:
        StageError: an importance is not finite, or no layer that reads a group's channels runs.

    Reference:
        l1: Hao Li et al., "Pruning Filters for Efficient ConvNets", 2017, arXiv:1608.08710. batch_norm: Zhuang Liu et
        al., "Learning Efficient Convolutional Networks through Network Slimming", 2017, arXiv:1708.06519. lamp: Jaeho
        Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", 2021, arXiv:2010.07611, eq. 4, with what
        magnitude gives for a channel in place of a weight's square. fpgm: Yang He et al., "Filter Pruning via Geometric
        Median for Deep Convolutional Neural Networks Acceleration", 2019, arXiv:1811.00250, eq. 4. taylor: P. Molchanov
        et al., "Importance Estimation for Neural Network Pruning", 2019, arXiv:1906.10771; the sum of |gradient *
        weight|. hessian: Yann LeCun et al., "Optimal Brain Damage", 1990, eq. 5, with the empirical Fisher information.
    """
    members = [member for group in groups for member in group.members or (group,)]
    scored = iter(_scored(members, model, importance, ctx))
    return [side_by_side([next(scored) for _ in group.members]) if group.members else next(scored) for group in groups]


def _scored(groups: Sequence[Coupled], model: TorchModel, importance: Importance, ctx: Context) -> list[Coupled]:
    if importance == "random":
        generator = torch.Generator().manual_seed(ctx.seed)
        return [replace(group, scores=torch.rand(len(group.scores), generator=generator)) for group in groups]
    if importance == "activation":
        read = magnitudes_read(model, ctx)
        return [_finite(group, _carried(group, read)) for group in groups]
    module = model.module
    if importance in LOSS:
        module = (gradients if importance == "taylor" else squared_gradients)(model, ctx)
    scored = [_finite(group, _weighed(group, module, importance)) for group in groups]
    return [replace(group, scores=lamp(group.scores)) for group in scored] if importance == "lamp" else scored


def has_measure(group: Coupled, module: nn.Module, importance: Importance) -> bool:
    """Whether a group has what the importance goes by."""
    return importance not in MEASURES or bool([*_measured(group, module, importance)])


def lamp(scores: Tensor) -> Tensor:
    """(channels,) each score as a share of itself and of all that are not smaller."""
    order = scores.argsort(stable=True)
    rest = scores[order].flip(0).cumsum(0).flip(0)
    return torch.empty_like(scores).index_copy_(0, order, scores[order] / rest.clamp_min(1e-30))


def _weighed(group: Coupled, module: nn.Module, importance: Importance) -> Tensor:
    """The mean over the layers that give or read the channels."""
    sums, parts = [], known(module)
    for place in _measured(group, module, importance):
        part, labels, halves = parts[place.name], group.places[place], []
        for weight in weighted(part, place):
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            both = (values.detach().float().cpu() for values in (weight, gradient))
            halves.append([slices(part, place, values) for values in both])
        weights, gradients = (torch.cat(some, 1) for some in zip(*halves, strict=True))
        sums.append(by_label(MEASURES[importance](weights, gradients), labels, len(group.scores)))
    return torch.stack(sums).mean(0)


def _measured(group: Coupled, module: nn.Module, importance: Importance) -> Iterable[Place]:
    """The places whose weights tell."""
    layers, parts = (*LAYERS, Cell, State), known(module)
    kinds = {"batch_norm": NORMS, "fpgm": layers}.get(importance, (*layers, *NORMS))
    for place in group.places:
        is_measured = place.side == "out" or (place.side == "in" and importance != "fpgm")
        if is_measured and isinstance(parts[place.name], kinds) and weighted(parts[place.name], place):
            yield place


def _carried(group: Coupled, read: Mapping[str, Tensor]) -> Tensor:
    """The mean over the layers that read the channels, each as a share of its own mean."""
    values = {place: read[place.name] for place in group.places if place.side == "in" and place.name in read}
    if not values:
        problem = f"no layer that reads the channels of `{group.root}` runs on the calibration data"
        raise StageError(problem, fix="Choose another `importance`, or name the layer in `ignore`")
    shares = [by_label(v / v.mean().clamp_min(1e-30), group.places[p], len(group.scores)) for p, v in values.items()]
    return torch.stack(shares).mean(0)


def _finite(group: Coupled, scores: Tensor) -> Coupled:
    if not torch.isfinite(scores).all():
        problem, fix = f"the importance of `{group.root}` is not finite", "Look for NaN in the weights or the loss"
        raise StageError(problem, fix=fix)
    return replace(group, scores=scores / scores.mean().clamp_min(1e-30))
