"""Heads of attention, by values: which queries, keys and values reach the same columns of the output projection."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, zip_longest

import torch
from torch import nn

from stages.prune.coupling.clusters import Cluster, Labels
from stages.prune.coupling.coupled import Coupled
from stages.prune.coupling.flow import NONE, SEVERAL, Columns, Flow
from stages.prune.coupling.parts import LAYERS, Place, is_norm, width

TRIED = 5
"""Names of integers that may count heads, of which some are left out in turn where not all together are right."""


@dataclass(frozen=True)
class Layout:
    """How the channels of a cluster's layers may lie in heads.

    Args:
        heads: how many; of grouped queries, those of the keys.
        segments: layer or embedding -> the lengths of what lies in it one after the other, each of all heads.
    """

    heads: int
    segments: Mapping[str, list[int]]

    def labels(self) -> Labels:
        """Place -> (channels,) the head of each."""
        return {
            Place(name, "out"): torch.cat([torch.arange(n) // (n // self.heads) for n in lengths])
            for name, lengths in self.segments.items()
        }


def heads(flow: Flow, clusters: list[Cluster]) -> list[list[Coupled]]:
    """For each cluster that is an attention the groups of its heads that may be right, likely ones first.

    A mark in a query, a key or a value of a head reaches the columns of this head alone. How many heads there are is an
    integer of a module that has one of the layers, or follows from one; the most that values allow is what counts.

    Args:
        flow: of the module.
        clusters: those whose single channels cannot go.
    """
    clusters = [cluster for cluster in clusters if cluster.columns]
    pending, attentions = [*clusters], list[list[Coupled]]()
    for layouts in zip_longest(*(_layouts(flow, cluster) for cluster in clusters)):
        pairs = zip(clusters, layouts, strict=True)
        tried = [(cluster, layout) for cluster, layout in pairs if layout and cluster in pending]
        if not tried:
            continue
        read = flow.read({place: labels for _, layout in tried for place, labels in layout.labels().items()})
        for cluster, layout in tried:
            if (columns := _columns(flow, cluster, read, layout.heads)) is not None:
                pending.remove(cluster)
                attentions.append([*_groups(flow, cluster, layout, columns)])
    return attentions


def _layouts(flow: Flow, cluster: Cluster) -> Iterator[Layout]:
    """Those that the widths allow, of many heads first: each layer of one segment, or some fused."""
    widths = [size for name, size in cluster.widths.items() if isinstance(flow.parts[name], LAYERS)]
    integers = {value for part in _owners(flow, cluster) for value in integers_of(part).values() if value > 0}
    read = max(len(columns) for columns in cluster.columns.values())
    lengths = {read, *(length for size in widths for fused in (1, 2, 3) for length in _segments(size, read, fused))}
    counts = integers | {length // value for length in lengths for value in integers}
    for count in sorted(counts, reverse=True):
        for fused in (1, 2, 3):
            segments = {name: _segments(size, read, fused) for name, size in cluster.widths.items()}
            is_other = fused == 1 or any(len(lengths) > 1 for lengths in segments.values())
            parts = [length for some in segments.values() for length in some]
            if 1 < count < max(widths) and is_other and all(length and length % count == 0 for length in parts):
                yield Layout(count, segments)


def _segments(size: int, read: int, fused: int) -> list[int]:
    """What lies in a layer where so many projections are fused: of queries as many as are read, the others alike."""
    if fused == 1 or size <= read:
        return [size]
    return [size // 2] * 2 if fused == 2 else [read, (size - read) // 2, (size - read) // 2]


def _columns(flow: Flow, cluster: Cluster, read: Columns, count: int) -> Columns | None:
    """Reader -> (columns,) the head of each; None where one has columns of no head, of several, or not of all alike.

    A norm of all heads alike has one parameter for a place in each of them: it stays as it is.
    """
    columns = {name: torch.where(mask, read.get(name, NONE), NONE) for name, mask in cluster.columns.items()}
    own = {n: c for n, c in columns.items() if not (is_norm(flow.parts[n]) and bool((c == SEVERAL).all()))}
    for labels in own.values():
        if (labels < 0).any() or len({*torch.bincount(labels, minlength=count).tolist()}) > 1:
            return None
    return own or None


def _groups(flow: Flow, cluster: Cluster, layout: Layout, columns: Columns) -> Iterator[Coupled]:
    """The heads with what counts them: all integers that may, or some of their names."""
    places = layout.labels() | {Place(name, "in"): labels for name, labels in columns.items()}
    places |= _loose(flow, layout.heads, columns)
    layers = sorted((n for n in cluster.widths if isinstance(flow.parts[n], LAYERS)), key=list(flow.parts).index)
    root = max(layers, key=lambda name: width(flow.parts[name]))
    sizes = _sizes(flow, cluster, layout)
    for out in _left_out(sizes, {flow.module.get_submodule(name).get_parameter("weight").shape[1] for name in layers}):
        own = {place: labels for place, labels in sizes.items() if place.attribute not in out}
        yield Coupled(root, tuple(layers), 1, torch.ones(layout.heads), places | own, "head")


def _left_out(sizes: Labels, read: set[int]) -> Iterator[set[str]]:
    """Names of integers that may not count heads after all, likely ones first.

    One that is as large as what the layers read may be that: all that may are left out, then less and less of them.
    """
    names = sorted({place.attribute for place in sizes})
    doubtful = sorted({place.attribute for place, labels in sizes.items() if len(labels) in read})
    others = [name for name in names if name not in doubtful]
    if len(names) > TRIED:
        yield set()
        return
    for few in range(len(others) + 1):
        for many in range(len(doubtful), -1, -1):
            yield from ({*a, *b} for a in combinations(others, few) for b in combinations(doubtful, many))


def _sizes(flow: Flow, cluster: Cluster, layout: Layout) -> Labels:
    """The integers beside the layers that may be a number of heads, or of channels of all heads."""
    lengths = {length for some in layout.segments.values() for length in some}
    each = min(length for length in lengths if length > layout.heads or len(lengths) == 1) // layout.heads
    counts = lengths | {length // each for length in lengths} | {*cluster.widths.values()}
    return {
        Place(f"{name}.{key}" if name else key, "size"): torch.arange(value) // (value // layout.heads)
        for name, part in flow.module.named_modules()
        if part in _owners(flow, cluster)
        for key, value in integers_of(part).items()
        if value in counts and value % layout.heads == 0 and value > 0
    }


def _loose(flow: Flow, count: int, columns: Columns) -> Labels:
    """Axes of tensors that belong to no layer, as biases by head, whose values reach the columns of one head each."""
    axes: Labels = {}
    sizes = {count, *map(len, columns.values())}
    for name, tensor in flow.loose.items():
        for axis, size in enumerate(tensor.shape):
            place = Place(name, axis)
            if size not in sizes or not {*flow.reached({place: torch.ones(size, dtype=torch.bool)})} <= {*columns}:
                continue
            labels = torch.arange(size) // (size // count)
            read = flow.read({place: labels})
            if read and all(torch.equal(read[n][read[n] != NONE], columns[n][read[n] != NONE]) for n in read):
                axes[place] = labels
    return axes


def _owners(flow: Flow, cluster: Cluster) -> list[nn.Module]:
    """The modules that have one of the layers, or what reads them."""
    names = {name.rpartition(".")[0] for name in (*cluster.widths, *cluster.columns)}
    return [flow.module.get_submodule(name) for name in names]


def integers_of(part: nn.Module) -> dict[str, int]:
    """Plain integer attributes of a module."""
    values = {key: value for key, value in vars(part).items() if not key.startswith("_")}
    return {key: value for key, value in values.items() if isinstance(value, int) and not isinstance(value, bool)}
