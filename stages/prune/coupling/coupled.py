"""Channels that can only be removed together, and all of them that a module has."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from stages.prune.coupling.parts import Place

Gone = dict[Place, list[int]]


@dataclass(frozen=True, eq=False)
class Coupled:
    """Output channels that can only be removed together from several layers, because their outputs are added.

    Args:
        root: the name of the layer whose channels are counted, the widest.
        layers: names of all convolutions and linear layers that lose output channels.
        groups: equal parts that lose the same channels each (grouped convolution, group normalization); else 1.
        scores: (channels / groups,) importance of each; ones until it is measured.
        places: all that loses channels with them -> (channels there,) which of the scores each goes by, NONE for none.
    """

    root: str
    layers: tuple[str, ...]
    groups: int
    scores: Tensor
    places: Mapping[Place, Tensor] = field(default_factory=dict)

    def joined(self, other: Self) -> Self:
        """The two as one, which loses the same channels of both."""
        both = {place: torch.maximum(own, other.places.get(place, own)) for place, own in self.places.items()}
        return replace(self, layers=(*self.layers, *other.layers), places={**other.places, **both})

    def without(self, numbers: Collection[int]) -> Gone:
        """The channels that leave each place with some of the scores' channels."""
        leaving = torch.tensor(sorted(numbers))
        gone = {place: torch.isin(labels, leaving).nonzero().flatten() for place, labels in self.places.items()}
        return {place: channels.tolist() for place, channels in gone.items() if len(channels)}


@dataclass(frozen=True)
class Couplings:
    """All that can be removed of a module.

    Args:
        groups: proven ones.
        whole: layers whose channels all stay, as what they reach cannot be told apart or is not the same without them.
    """

    groups: list[Coupled]
    whole: tuple[str, ...]
