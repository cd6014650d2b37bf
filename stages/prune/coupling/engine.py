"""Which channels can only be removed together, found and proven by values, and removing them.

torch-pruning cuts most single layers. Which of their channels belong together is not read from its dependency graph,
which goes by shapes and is wrong wherever channels change their places.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from pipeline.base.batches import Inputs
from pipeline.errors import StageError
from stages.prune.coupling.cells import Cell
from stages.prune.coupling.clusters import Cluster, Labels, clusters, keeps, recurrent, separated
from stages.prune.coupling.coupled import Coupled, Couplings, Gone, merged
from stages.prune.coupling.flow import Flow
from stages.prune.coupling.heads import heads
from stages.prune.coupling.parts import LAYERS, Place, is_depthwise, is_norm, layer_of, remove, runs, width
from stages.prune.coupling.proof import misfits, shaken
from stages.prune.coupling.prover import Prover
from stages.prune.coupling.recurrent import owners, stacked
from stages.prune.ignored import is_in

PARTS = (2, 3, 4, 8)
"""In how many parts that lose the same channels each is tried where single channels cannot go: halves, shuffles."""


def couplings(module: nn.Module, example: Inputs, ignore: tuple[str, ...] = (), with_heads: bool = False) -> Couplings:
    """All channels of a module that can be removed without changing the shape of its outputs.

    Each group is proven: where half of its channels are dead, the module without them gives the same, whatever the
    weights.

    Args:
        module: in evaluation mode; it is not changed.
        example: a batch of its inputs.
        ignore: names of layers, or of parts with layers in them, whose output channels stay.
        with_heads: whether heads of attention can be removed too.

    Raises:
        StageError: the module does not run on the example.
    """
    flow, prover = Flow(module, example), Prover(shaken(module), example)
    clustered, dense = clusters(flow)
    clustered = [cluster for cluster in clustered if _is_prunable(flow, cluster, ignore)]
    groups, partial, units = list[Coupled](), list[Coupled](), list[Coupled]()
    for size, beside in _sets(flow):
        pending = _pending(clustered, [*groups, *units])
        trial = [one for one in pending if one.width % size == 0 and one.width > size]
        candidates = [_coupled(flow, labels, size) for _, labels in separated(flow, trial, size, beside)]
        units += [group for group in candidates if owners(flow, [group])]
        candidates = [group for group in candidates if group not in units]
        groups += prover.proven(candidates)
        if size == 1:
            partial = [common for group in candidates if (common := group.common())]
        if size == 1 and with_heads:
            others = [one for one in _pending(clustered, [*groups, *units]) if not recurrent(flow, one)]
            groups += prover.without_sizes(prover.first_proven(heads(flow, others)))
    rest = {name for cluster in _pending(clustered, groups) for name in cluster.widths}
    groups += prover.proven([one for one in partial if one.root in rest], joint=False)
    groups += prover.first_proven(stacked(flow, units))
    order = list(flow.parts)
    names = [name for cluster in _pending(clustered, groups) for name in cluster.widths]
    layers = [layer for name in names if (layer := layer_of(flow.parts, name))]
    left = [name for name in dense if not is_in(name, ignore)]
    whole = tuple(sorted({*layers, *left}, key=order.index))
    return Couplings(sorted(groups, key=lambda group: order.index(group.root)), whole)


def widths(module: nn.Module) -> dict[str, int]:
    """Output channels of every convolution and linear layer, and units of every recurrent one, by name."""
    layers = (*LAYERS, nn.RNNBase)
    return {name: width(layer) for name, layer in module.named_modules() if isinstance(layer, layers)}


def cut(
    module: nn.Module, example: Inputs, channels: Mapping[str, list[int]], groups: Sequence[Coupled] | None = None
) -> nn.Module:
    """A copy of the module without some channels, proven to be the same where they are dead; tied parameters stay tied.

    Args:
        module: not changed.
        example: a batch of its inputs.
        channels: root layer -> the output channels to remove from it and from all that is coupled to it.
        groups: of `couplings`; found anew where it is None.

    Raises:
        StageError: the channels cannot be removed, or not without others, or what is left does not give the same.
    """
    groups = couplings(module, example).groups if groups is None else groups
    if wrong := unproven(module, example, channels, groups):
        problem = f"without dead channels of {', '.join(f'`{root}`' for root in wrong)} the model gives other values"
        fix = f"Leave out what cannot be cut: `ignore: [{', '.join(wrong)}]`"
        raise StageError(problem, where="the pruned model", expected="the same, or another share to keep", fix=fix)
    return trimmed(module, channels, groups)


def unproven(
    module: nn.Module, example: Inputs, channels: Mapping[str, list[int]], groups: Sequence[Coupled]
) -> list[str]:
    """The roots whose channels must stay so that the dead ones of all others can leave together.

    Arguments and errors are those of `cut`.
    """
    prover = Prover(shaken(module), example)
    gone = {root: _gone(groups, root, indices) for root, indices in channels.items()}
    return misfits(gone, lambda roots: prover.can_leave(merged(gone[root] for root in roots)))


def trimmed(module: nn.Module, channels: Mapping[str, list[int]], groups: Sequence[Coupled]) -> nn.Module:
    """A copy of the module without some channels, as it comes; see `cut`."""
    smaller = copy.deepcopy(module)
    remove(smaller, merged(_gone(groups, root, indices) for root, indices in channels.items()))
    return smaller


def _gone(groups: Sequence[Coupled], root: str, indices: list[int]) -> Gone:
    """What leaves with channels of a root layer. Raises StageError where they cannot, or not without others."""
    group = next((group for group in groups if group.root == root), None)
    if group is None:
        expected = f"one of {', '.join(f'`{group.root}`' for group in groups) or 'none'}"
        problem, fix = f"the channels of `{root}` cannot be removed", f"Leave it out: `ignore: [{root}]`"
        raise StageError(problem, where="the pruned model", expected=expected, fix=fix)
    labels = group.places[Place(root, "out")]
    gone = group.without(labels[indices].tolist())
    if gone and gone[Place(root, "out")] != sorted(set(indices)):
        raise StageError(f"channels {sorted(set(indices))} of `{root}`", expected=f"{gone[Place(root, 'out')]} at once")
    return gone


def _sets(flow: Flow) -> list[tuple[int, bool]]:
    """How many channels may only go together, and whether they are neighbours; likely ones first."""
    parts = {*PARTS, *map(runs, flow.parts.values())} - {1}
    factors = {factor**2 for factor in flow.shuffled} - {1}
    return [(1, False), *((size, False) for size in sorted(parts)), *((size, True) for size in sorted(factors))]


def _pending(clustered: Iterable[Cluster], groups: Iterable[Coupled]) -> list[Cluster]:
    """Those of which no part is in a group."""
    done = {place.name for group in groups for place in group.places if place.side == "out"}
    return [cluster for cluster in clustered if done.isdisjoint(cluster.widths)]


def _is_prunable(flow: Flow, cluster: Cluster, ignore: tuple[str, ...]) -> bool:
    """Whether it has a layer with channels to spare, and none of it is to be left alone."""
    layers = [name for name in cluster.widths if layer_of(flow.parts, name)]
    depthwise = [name for name in cluster.columns if is_depthwise(flow.parts[name])]
    norms = [name for name in cluster.columns if is_norm(flow.parts[name])]
    is_left_alone = any(is_in(n, ignore) for n in (*cluster.widths, *depthwise)) or not {*ignore}.isdisjoint(norms)
    return bool(layers) and cluster.width > 1 and not is_left_alone


def _coupled(flow: Flow, labels: Labels, size: int) -> Coupled:
    outs = [place.name for place in labels if place.side == "out"]
    cells = {name: part for name in outs if isinstance(part := flow.parts[name], Cell)}
    labels |= {Place(f"{name}.state", "in"): labels[Place(name, "out")] for name in cells}
    sizes = {part.owner: labels[Place(name, "out")] for name, part in cells.items() if part.end == "l0"}
    layers = [name for name in outs if isinstance(flow.parts[name], LAYERS)]
    layers = sorted((*layers, *sizes), key=list(flow.parts).index)
    roots = [name for name in layers if not is_depthwise(flow.parts[name])]
    labels |= {Place(owner, "out"): own for owner, own in sizes.items()}
    # The widest, the first of equal ones; before others the narrowest recurrent layer, so that its width is rounded.
    widths = {name: len(labels[Place(name, "out")]) for name in roots or cells}
    root = min(sizes, key=widths.__getitem__) if sizes else max(widths, key=widths.__getitem__)
    through = frozenset(name for name in outs if keeps(flow.parts[name]))
    scores = torch.ones(int(labels[Place(root, "out")].max()) + 1)
    return Coupled(root, tuple(layers), size, scores, labels, through=through)
