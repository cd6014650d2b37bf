"""Channels that can only be removed together, and all of them that a module has."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain
from typing import Literal, Self

import torch
from torch import Tensor

from stages.prune.coupling.flow import NONE
from stages.prune.coupling.parts import Place

Gone = dict[Place, list[int]]
Width = Literal["heads", "feed_forward", "hidden"]


@dataclass(frozen=True, eq=False)
class Coupled:
    """Output channels that can only be removed together from several layers, because their outputs are added.

    Or as many at a time of each of several members, as the cells of a recurrent layer, which may lose different ones.

    Args:
        root: the name of the layer whose channels are counted, the widest.
        layers: names of all convolutions, linear and recurrent layers that lose output channels.
        groups: how many channels of the root a score is of: one of each of equal parts (grouped convolution, group
            normalization), or neighbours (shuffled pixels); else 1.
        scores: (channels / groups,) importance of each; ones until it is measured.
        places: all that loses channels with them -> (channels there,) which of the scores each goes by, NONE for none.
        unit: what a score is of: a channel, or a head of attention, which has several at each place.
        members: those of which each loses as many, if any.
        through: names of those that hand channels on as they come, as norms and depthwise convolutions.
    """

    root: str
    layers: tuple[str, ...]
    groups: int
    scores: Tensor
    places: Mapping[Place, Tensor] = field(default_factory=dict)
    unit: Literal["channel", "head"] = "channel"
    members: tuple["Coupled", ...] = ()
    through: frozenset[str] = frozenset()

    @property
    def labels(self) -> Tensor:
        """(channels,) of the root, which of the scores each goes by."""
        return self.places[Place(self.root, "out")]

    @property
    def width(self) -> Width:
        """What it is of a transformer: hidden where several layers give it and several read it, as a residual sum."""
        if self.unit == "head":
            return "heads"
        givers, readers = ({place.name for place in self.places if place.side == side} for side in ("out", "in"))
        return "hidden" if len(givers - self.through) > 1 and len(readers) > 1 else "feed_forward"

    @property
    def sizes(self) -> set[str]:
        """Names of the attributes of submodules that count its channels or heads."""
        return {place.attribute for place in self.places if place.side == "size"}

    def without_size(self, name: str) -> Self:
        """The same where attributes of this name stay as they are."""
        own = {p: labels for p, labels in self.places.items() if p.side != "size" or p.attribute != name}
        return replace(self, places=own)

    def joined(self, other: Self) -> Self:
        """The two as one, which loses the same channels of both."""
        both = {place: torch.maximum(own, other.places.get(place, own)) for place, own in self.places.items()}
        layers, through = (*self.layers, *other.layers), self.through | other.through
        return replace(self, layers=layers, places={**other.places, **both}, through=through)

    def common(self) -> "Coupled | None":
        """The same of the channels alone that all of its layers have; None where that is all of them, or none.

        What a sum pads with zeros in one of its parts stays, as at the shortcuts without weights of a ResNet.
        """
        every = [{*self.places[Place(layer, "out")].tolist()} for layer in self.layers]
        shared = sorted(set.intersection(*every) - {NONE})
        if not shared or len(shared) == len(self.scores):
            return None
        numbers = torch.full((len(self.scores) + 1,), NONE)  # the last is for NONE
        numbers[shared] = torch.arange(len(shared))
        places = {place: numbers[labels] for place, labels in self.places.items()}
        return replace(self, scores=torch.ones(len(shared)), places=places)

    def meets(self, other: Self) -> bool:
        """Whether a channel belongs to both."""
        both = ((self.places[place], other.places[place]) for place in self.places.keys() & other.places.keys())
        return any(bool(((own >= 0) & (labels >= 0)).any()) for own, labels in both)

    def ranked(self) -> Self:
        """The same with scores in ascending order."""
        order = torch.argsort(self.scores, stable=True)
        rank = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order)))
        places = {place: torch.where(own < 0, own, rank[own.clamp_min(0)]) for place, own in self.places.items()}
        return replace(self, scores=self.scores[order], places=places)

    def without(self, numbers: Collection[int]) -> Gone:
        """The channels that leave each place with some of the scores' channels."""
        leaving = torch.tensor(sorted(numbers))
        gone = {place: torch.isin(labels, leaving).nonzero().flatten() for place, labels in self.places.items()}
        return {place: channels.tolist() for place, channels in gone.items() if len(channels)}


def merged(gone: Iterable[Gone]) -> Gone:
    """What several groups lose, each place once."""
    places: dict[Place, set[int]] = {}
    for place, channels in chain.from_iterable(one.items() for one in gone):
        places.setdefault(place, set()).update(channels)
    return {place: sorted(channels) for place, channels in places.items()}


def side_by_side(members: Sequence[Coupled]) -> Coupled:
    """Members of as many scores as one: what matters least leaves each of them, as much of each.

    Args:
        members: of which no two have a channel in common; the root is the first one's.
    """
    ranked = [member.ranked() for member in members]
    scores = torch.stack([member.scores for member in ranked]).mean(0)
    groups = max(member.groups for member in members)
    return replace(reduce(Coupled.joined, ranked), groups=groups, scores=scores, members=tuple(members))


@dataclass(frozen=True)
class Couplings:
    """All that can be removed of a module.

    Args:
        groups: proven ones.
        whole: layers whose channels all stay, as what they reach cannot be told apart or is not the same without them.
    """

    groups: list[Coupled]
    whole: tuple[str, ...]
