"""Layers that belong together because their outputs reach the same columns, and which of their channels do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from stages.prune.coupling.cells import Cell
from stages.prune.coupling.flow import END, NONE, SEVERAL, Columns, Flow
from stages.prune.coupling.parts import LAYERS, Part, Place, is_depthwise, is_norm, is_source, layer_of, runs, width

Labels = dict[Place, Tensor]
"""Place -> (channels there,) the number of the set of channels that each belongs to, NONE for no set."""


@dataclass(frozen=True)
class Cluster:
    """Sources of channels that reach a column in common.

    Args:
        widths: layer, embedding or cell -> its output channels.
        columns: reader -> (columns,) bool, those that any of the sources reaches.
    """

    widths: Mapping[str, int]
    columns: Columns

    @property
    def width(self) -> int:
        """Channels of the widest source."""
        return max(self.widths.values())

    def meets(self, columns: Columns) -> bool:
        """Whether any of these columns is one of its own."""
        return any((self.columns[name] & columns[name]).any() for name in self.columns.keys() & columns.keys())

    def joined(self, other: Self) -> "Cluster":
        """The two as one."""
        either = {name: seen for cluster in (self, other) for name, seen in cluster.columns.items()}
        both = {name: self.columns[name] | other.columns[name] for name in self.columns.keys() & other.columns.keys()}
        return Cluster({**self.widths, **other.widths}, either | both)


def clusters(flow: Flow) -> tuple[list[Cluster], list[str]]:
    """All layers that do not reach an output, by what they reach; and those of whose channels nothing can be told.

    A single channel of the latter reaches as much as all do, as those of queries, keys and gates of whole maps; or the
    forward does not run with values that are not finite.
    """
    joint_clusters: list[Cluster] = []
    dense = []
    for name in flow.ran():
        part = flow.parts[name]
        if not is_source(part) or not isinstance(part, (*LAYERS, nn.Embedding, Cell)):
            continue
        if isinstance(part, Cell) and part.rnn.proj_size:
            dense.append(name)
            continue
        channels = torch.arange(width(part))
        try:
            columns, first = (flow.reached({Place(name, "out"): mask}) for mask in (channels >= 0, channels == 0))
        except StageError:
            dense.append(name)
            continue
        if END not in columns and columns and _same(columns, first):
            dense.append(name)
            continue
        cluster = Cluster({name: width(part)}, columns)
        for other in [other for other in joint_clusters if other.meets(columns)]:
            joint_clusters.remove(other)
            cluster = other.joined(cluster)
        joint_clusters.append(cluster)
    bound = {owner for cluster in joint_clusters if END in cluster.columns for owner in recurrent(flow, cluster)}
    free_clusters = [cluster for cluster in joint_clusters if END not in cluster.columns]
    free_clusters = [cluster for cluster in free_clusters if bound.isdisjoint(recurrent(flow, cluster))]
    layers = [layer for name in dense if width(flow.parts[name]) > 1 and (layer := layer_of(flow.parts, name))]
    return free_clusters, [*dict.fromkeys(layers)]


def recurrent(flow: Flow, cluster: Cluster) -> set[str]:
    """The recurrent layers that have cells in a cluster; all cells of one lose as many units."""
    parts = [flow.parts[name] for name in cluster.widths]
    return {part.owner for part in parts if isinstance(part, Cell)}


def separated(flow: Flow, trial: list[Cluster], size: int, beside: bool = False) -> Iterator[tuple[Cluster, Labels]]:
    """The clusters whose columns read one set of channels each, with all that belongs to the sets.

    Args:
        trial: those to look at.
        size: how many channels of the widest a set has: one of each of so many equal parts.
        beside: or neighbours.
    """
    if not trial:
        return
    sources = [
        (Place(name, "out"), width, cluster.width) for cluster in trial for name, width in cluster.widths.items()
    ]
    every = {place: torch.arange(width) for place, width, _ in sources}
    widest = [place for place, width, most in sources if width == most]
    index = {p: every[p] // size if beside else every[p] % (len(every[p]) // size) for p in widest}
    read = flow.read(index)
    others = {place: channels for place, channels in every.items() if place not in index}
    others |= _loose_axes(flow, {cluster.width for cluster in trial})
    rest = _read_apart(flow, others)
    for cluster in trial:
        columns = {name: torch.where(mask, read.get(name, NONE), NONE) for name, mask in cluster.columns.items()}
        own = {place: channels for place, channels in index.items() if place.name in cluster.widths}
        for place, seen in rest.items():
            if (labels := _followed(seen, columns, len(others[place]))) is not None:
                own[place] = labels
                columns = {name: _filled(numbers, seen.get(name), labels) for name, numbers in columns.items()}
        if any((columns[name][mask] < 0).any() for name, mask in cluster.columns.items()):
            continue
        own |= {Place(n, "out" if keeps(flow.parts[n]) else "in"): labels for n, labels in columns.items()}
        sets = cluster.width // size
        whole = all(Place(name, "out") in own for name in cluster.widths)
        if whole and all(_is_even(flow.parts.get(place.name), place, labels, sets) for place, labels in own.items()):
            yield cluster, own


def _same(one: Columns, other: Columns) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def keeps(part: Part) -> bool:
    """Whether the channels that it reads are those that it gives."""
    return is_norm(part) or is_depthwise(part)


def _is_even(part: Part | None, place: Place, labels: Tensor, sets: int) -> bool:
    """Whether each run of a part's channels has the same sets in the same places, and a cell as many units of each."""
    if isinstance(part, Cell) and place.side == "out":
        return len({*torch.bincount(labels, minlength=sets).tolist()}) == 1
    in_runs = labels.view(runs(part), -1) if part is not None else labels[None]
    return bool((in_runs == in_runs[0]).all())


def _loose_axes(flow: Flow, sizes: set[int]) -> dict[Place, Tensor]:
    """Axes of tensors that belong to no layer, as wide as a cluster is."""
    return {
        Place(name, axis): torch.arange(size)
        for name, tensor in flow.loose.items()
        for axis, size in enumerate(tensor.shape)
        if size in sizes
    }


def _read_apart(flow: Flow, index: Mapping[Place, Tensor]) -> dict[Place, Columns]:
    """Place -> what its own channels give to read.

    All are read at once, those that meet others there again with those of their width, and where these meet as other
    channels by themselves.
    """
    apart = {place: columns for place, columns in flow.apart.items() if place in index}
    sizes = {place: len(channels) for place, channels in index.items() if place not in apart}
    reached = {place: flow.reached({place: torch.ones(size, dtype=torch.bool)}) for place, size in sizes.items()}
    sets = [[*sizes], *([p for p in sizes if sizes[p] == size] for size in {*sizes.values()}), *([p] for p in sizes)]
    for places in sets:
        rest = [place for place in places if place not in apart]
        joint = flow.read({place: index[place] for place in rest}) if rest else {}
        for place in rest:
            columns = {name: torch.where(mask, joint[name], NONE) for name, mask in reached[place].items()}
            if len(rest) == 1 or not any((numbers == SEVERAL).any() for numbers in columns.values()):
                apart[place] = columns
    flow.apart |= apart
    return apart


def _followed(seen: Columns, labels: Columns, size: int) -> Tensor | None:
    """(size,) the sets of channels, told from the columns that read them; None where they are of no set, or of several.

    Args:
        seen: reader -> (columns,) the channel that each reads.
        labels: reader -> (columns,) the set that each belongs to.
    """
    own = torch.full((size,), NONE)
    for name in seen.keys() & labels.keys():
        mine = (seen[name] != NONE) & (labels[name] >= 0)
        if (seen[name][mine] < 0).any():
            return None
        own[seen[name][mine]] = labels[name][mine]
    return own if bool((own >= 0).all()) and _agree(seen, labels, own) else None


def _filled(columns: Tensor, seen: Tensor | None, labels: Tensor) -> Tensor:
    """(columns,) with the sets of those that the widest do not reach, by the channel that each reads of another one."""
    if seen is None:
        return columns
    return torch.where((columns == NONE) & (seen >= 0), labels[seen.clamp_min(0)], columns)


def _agree(seen: Columns, labels: Columns, own: Tensor) -> bool:
    """Whether no channel is of two sets."""
    for name in seen.keys() & labels.keys():
        mine = (seen[name] >= 0) & (labels[name] >= 0)
        if not torch.equal(own[seen[name][mine]], labels[name][mine]):
            return False
    return True
