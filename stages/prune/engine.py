"""Which channels can only be removed together, and removing them: a thin layer over torch-pruning's dependency graph.

Its graph and its importances are used, its pruner is not: that one rounds wrongly where channels come in groups, and
knows ratios, not costs.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from pipeline.base.batches import Inputs
from pipeline.errors import StageError, blame
from pipeline.forms.tracing import slow_path
from pipeline.model import call

LAYERS = (_ConvNd, nn.Linear)  # what has channels to remove
# Attention would lose its split into heads; torch-pruning cuts the wrong rows of a recurrent layer's gates.
FIXED = (nn.MultiheadAttention, nn.RNNBase)


@dataclass(frozen=True)
class Coupled:
    """Output channels that can only be removed together from several layers, because their outputs are added.

    Args:
        root: the name of the layer whose channels are counted.
        layers: names of all convolutions and linear layers that lose output channels.
        groups: equal parts that lose the same channels each (grouped convolution, group normalization); else 1.
        scores: (channels / groups,) importance of each, mean 1.
    """

    root: str
    layers: tuple[str, ...]
    groups: int
    scores: Tensor


def coupled(module: nn.Module, example: Inputs, ignore: tuple[str, ...], importance: str) -> list[Coupled]:
    """All channels of a module that can be removed without changing the shape of its outputs.

    Args:
        module: in evaluation mode; with gradients where the importance is "taylor".
        example: a batch of its inputs.
        ignore: names of layers, or of parts with layers in them, whose output channels stay.
        importance: "magnitude" or "taylor".

    Raises:
        StageError: torch-pruning cannot trace the module, or an importance is not finite.
    """
    import torch_pruning as tp

    named = {"magnitude": tp.importance.GroupMagnitudeImportance, "taylor": tp.importance.GroupTaylorImportance}
    score = named[importance](normalizer=None)
    parts = [part for name in ignore for part in module.get_submodule(name).modules()]
    graph, ignored_layers = _trace(module, example)
    ignored_layers += [*parts, *(part for part in module.modules() if isinstance(part, FIXED))]
    coupled_groups = []
    with blame(StageError, "torch-pruning"):
        for group in graph.get_all_groups(ignored_layers=ignored_layers, root_module_types=LAYERS):
            groups, scores = _channel_groups(graph, group), score(group)
            if groups and scores is not None:
                coupled_groups.append(_coupled(graph, group, groups, scores.cpu()))
    return coupled_groups


def cut(module: nn.Module, example: Inputs, channels: Mapping[str, list[int]]) -> nn.Module:
    """A copy of the module without some channels; tied parameters stay tied.

    Args:
        module: not changed.
        example: a batch of its inputs.
        channels: root layer -> the output channels to remove from it and from all that is coupled to it.

    Raises:
        StageError: the module does not run without them, gives other shapes, or tied parameters came apart.
    """
    try:
        return _cut(module, example, channels)
    except StageError as error:
        several = len(channels) > 1
        alone = [root for root in channels if not (several and _survives(module, example, root, channels[root]))]
        error.fix = error.fix or f"Leave out what cannot be cut: `ignore: [{', '.join(alone or channels)}]`"
        raise


def widths(module: nn.Module) -> dict[str, int]:
    """Output channels of every convolution and linear layer, by name."""
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, LAYERS)]
    return {name: layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features for name, layer in layers}


def _cut(module: nn.Module, example: Inputs, channels: Mapping[str, list[int]]) -> nn.Module:
    ties, shapes = _ties(module), _shapes(module, example)
    pruned = copy.deepcopy(module)
    graph, _ = _trace(pruned, example)
    with blame(StageError, "torch-pruning"):
        for root, indices in channels.items():
            layer = pruned.get_submodule(root)
            remove = graph.get_pruner_of_module(layer).prune_out_channels
            graph.get_pruning_group(layer, remove, indices).prune(record_history=False)
    for names in ties:
        _tie(pruned, names)
    with blame(StageError, "the pruned model"):
        now = _shapes(pruned, example)
    if now != shapes:
        raise StageError(f"the pruned model gives {now}", expected=f"{shapes}")
    return pruned


def _survives(module: nn.Module, example: Inputs, root: str, indices: list[int]) -> bool:
    try:
        _cut(module, example, {root: indices})
    except StageError:
        return False
    return True


def _trace(module: nn.Module, example: Inputs) -> tuple[Any, list[nn.Module]]:
    """The dependency graph, and the layers from which an output is reached without passing another one."""
    import torch_pruning as tp

    outputs: list[Tensor] = []

    def forward(traced: nn.Module, inputs: Inputs) -> list[Tensor]:
        outputs.extend(value for value in call(traced, inputs).values() if value.grad_fn is not None)
        return outputs

    module.requires_grad_(True)  # the graph is read from autograd
    blaming = blame(StageError, "torch-pruning", fix="The forward must run under autograd")
    with blaming, torch.enable_grad(), slow_path():
        graph = tp.DependencyGraph().build_dependency(module, example, forward_fn=forward, verbose=False)
    ends = {value.grad_fn for value in outputs}
    waiting = [node for node in graph.module2node.values() if not node.outputs or node.grad_fn in ends]
    last: list[nn.Module] = []
    seen = set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node.module, (*LAYERS, *FIXED, nn.Embedding)):
            last.append(node.module)
        else:
            waiting.extend(node.inputs)
    return graph, last


def _coupled(graph: Any, group: Any, groups: int, scores: Tensor) -> Coupled:
    names = graph._module2name  # the names in the traced module; there is no public way to them
    root = names[group[0].dep.target.module]
    if not torch.isfinite(scores).all():
        raise StageError(f"the importance of `{root}` is not finite", fix="Look for NaN in the weights or the loss")
    scores = scores.view(groups, -1).mean(0)
    parts = [dep for dep, _ in group if isinstance(dep.target.module, LAYERS)]
    layers = tuple(names[dep.target.module] for dep in parts if graph.is_out_channel_pruning_fn(dep.handler))
    return Coupled(root, layers, groups, scores / scores.mean().clamp_min(1e-30))


def _channel_groups(graph: Any, group: Any) -> int:
    """Parts that must stay equal, or 0 where they do not divide the channels and none can be removed."""
    channels, groups = len(group[0].idxs), 1
    for dep, indices in group:
        layer = dep.target.module
        is_depthwise = isinstance(layer, _ConvNd) and layer.groups == layer.in_channels == layer.out_channels
        parts = layer.groups if isinstance(layer, _ConvNd) else getattr(layer, "num_groups", 1)
        if parts == 1 or is_depthwise:
            continue
        if len(indices) != channels or channels % parts or max(groups, parts) % min(groups, parts):
            return 0
        groups = max(groups, parts)
    return groups


def _shapes(module: nn.Module, example: Inputs) -> dict[str, list[int]]:
    with torch.no_grad(), slow_path():
        return {name: list(value.shape) for name, value in call(module, example).items()}


def _ties(module: nn.Module) -> list[list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [tied for tied in names.values() if len(tied) > 1]


def _tie(module: nn.Module, names: list[str]) -> None:
    first = module.get_parameter(names[0])
    for name in names[1:]:
        if not torch.equal(module.get_parameter(name), first):
            raise StageError(f"the tied parameters {names} would lose different channels")
        owner, _, key = name.rpartition(".")
        setattr(module.get_submodule(owner), key, first)
