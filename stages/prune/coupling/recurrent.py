"""Recurrent layers as a whole: of what belongs to each of their cells, groups that leave each cell as many units."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce

from torch import nn

from stages.prune.coupling.cells import Cell
from stages.prune.coupling.clusters import Labels
from stages.prune.coupling.coupled import Coupled, side_by_side
from stages.prune.coupling.flow import Flow
from stages.prune.coupling.heads import integers_of
from stages.prune.coupling.parts import Place


def stacked(flow: Flow, candidates: Iterable[Coupled]) -> list[list[Coupled]]:
    """For recurrent layers that hang together the groups that may be right, likely ones first.

    All cells of a layer have as many units as its hidden size, and each loses those that matter least to it. Layers of
    which a cell is not among the candidates, or has other sets of units than the others, are left out. The second group
    has the integers of the modules around that are as large, by which a forward may make states of zeros.

    Args:
        flow: of the module.
        candidates: groups with cells in them.
    """
    sets: list[list[Coupled]] = []
    for candidate in candidates:
        layers = owners(flow, [candidate])
        joint = [some for some in sets if not layers.isdisjoint(owners(flow, some))]
        sets = [*(some for some in sets if some not in joint), [candidate, *(one for some in joint for one in some)]]
    trials = list[list[Coupled]]()
    for some in sets:
        names = {place.name for group in some for place in group.places if place.side == "out"}
        own = owners(flow, some)
        cells = {name for name, part in flow.parts.items() if isinstance(part, Cell) and part.owner in own}
        if cells <= names and len({len(group.scores) for group in some}) == 1:
            members = _apart(sorted(some, key=lambda group: _order(flow, group)))
            members.sort(key=lambda group: _order(flow, group))
            trials.append([_one(members)])
            if sizes := _sizes(flow, own, members):
                first = replace(members[0], places={**members[0].places, **sizes})
                trials[-1].append(_one([first, *members[1:]]))
    return trials


def owners(flow: Flow, groups: Sequence[Coupled]) -> set[str]:
    """The recurrent layers that have cells in some groups."""
    parts = [flow.parts.get(place.name) for group in groups for place in group.places if place.side == "out"]
    return {part.owner for part in parts if isinstance(part, Cell)}


def _order(flow: Flow, group: Coupled) -> tuple[bool, int]:
    """Those with a recurrent layer as their root first."""
    return not isinstance(flow.parts[group.root], nn.RNNBase), [*flow.parts].index(group.root)


def _apart(groups: Iterable[Coupled]) -> list[Coupled]:
    """The groups, those that have a channel in common as one, as where one tensor is the first state of all layers."""
    members = list[Coupled]()
    for group in groups:
        met = [member for member in members if member.meets(group)]
        members = [*(member for member in members if member not in met), reduce(Coupled.joined, [*met, group])]
    return members


def _one(members: list[Coupled]) -> Coupled:
    return side_by_side(members) if len(members) > 1 else members[0]


def _sizes(flow: Flow, names: Iterable[str], members: list[Coupled]) -> Labels:
    """Integers, of the modules around recurrent layers, that are as large as these."""
    sizes: Labels = {}
    for name in names:
        outer, place = name.rpartition(".")[0], Place(name, "out")
        labels = next(group.places[place] for group in members if place in group.places)
        for key, value in integers_of(flow.module.get_submodule(outer)).items():
            if value == len(labels):
                sizes[Place(f"{outer}.{key}" if outer else key, "size")] = labels
    return sizes
