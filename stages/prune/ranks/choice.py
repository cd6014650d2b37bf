"""How many ranks each layer keeps: by its own energy, by what all together may cost, or as it is told."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, tensor

from pipeline.base.use import nearest
from pipeline.errors import ShrinkError
from stages.prune.ranks.layers import Layer, Layers, Ranks

STEPS = 20_000
"""In how many steps a budget is divided, so that costs are rounded up to one: an exact solver may take minutes."""


@dataclass(frozen=True, eq=False)
class Options:
    """What a layer can become.

    Args:
        name: of the layer.
        ranks: (n, count), all of which make it smaller.
        costs: (n, 2) parameters and MACs.
        kept: (n,) share of the energy, 0 to 1.
        whole: what the layer costs as it is.
    """

    name: str
    ranks: Tensor
    costs: Tensor
    kept: Tensor
    whole: tuple[int, int]

    def at(self, place: int) -> Ranks:
        """The ranks at a place."""
        return tuple(self.ranks[place].tolist())


class Row(NamedTuple):
    """One of the things that a layer can become: its place among the options, None for the layer as it is."""

    place: int | None
    cost: int
    lost: float


def options(layer: Layer, ranks: Tensor, table: Tensor) -> Options:
    """A layer's options where these ranks are possible, by the table of energies that `kept` gives."""
    return Options(layer.name, ranks, layer.costs(ranks), table[tuple((ranks - 1).T)], layer.whole)


def by_energy(one: Options, energy: float) -> Ranks | None:
    """The ranks of fewest MACs that keep a share of the energy; None where those make the layer no smaller."""
    enough = (one.kept >= energy - 1e-9).nonzero().flatten()
    return one.at(int(enough[one.costs[enough, 1].argmin()])) if len(enough) else None


def by_cost(layers: Sequence[Options], kind: int, budget: int) -> dict[str, Ranks]:
    """The ranks of those layers that change, so that all cost `budget` at most and lose least: the sum of their shares.

    The multiple-choice knapsack problem, by dynamic programming over what is spent (H. Kellerer, U. Pferschy, D.
    Pisinger, "Knapsack Problems", 2004, section 11.5).

    Args:
        kind: 0 for parameters, 1 for MACs.
        budget: no less than what all layers cost at their cheapest.
    """
    unit = max(budget // STEPS, 1)
    least, fronts, taken = np.zeros(budget // unit + 1), [_front(one, kind) for one in layers], []
    for front in fronts:
        before, least = least, np.full_like(least, np.inf)
        chosen = np.zeros(len(least), dtype=int)
        for number, row in enumerate(front):
            spent = _steps(row, unit)
            lost = before[: max(len(least) - spent, 0)] + row.lost
            better = lost < least[spent:]
            least[spent:][better], chosen[spent:][better] = lost[better], number
        taken.append(chosen)
    left, rows = len(least) - 1, list[Row]()
    for front, chosen in zip(reversed(fronts), reversed(taken), strict=True):
        rows.append(front[chosen[left]] if np.isfinite(least[-1]) else front[0])  # rounded up not even the cheapest fit
        left -= _steps(rows[-1], unit)
    pairs = zip(layers, reversed(rows), strict=True)
    return {one.name: one.at(row.place) for one, row in pairs if row.place is not None}


def as_told(layers: Layers, rank: Mapping[str, Any], error: type[ShrinkError]) -> dict[str, Ranks]:
    """The ranks of those layers that patterns name; of several that fit a layer the one of most letters counts.

    Args:
        rank: pattern -> a number, or two for Tucker-2; in any order.

    Raises:
        error: a pattern fits nothing that can be factorized, or a rank makes a layer no smaller.
    """
    for pattern in rank:
        if not any(fnmatchcase(layer.name, pattern) for layer in layers.layers):
            raise error(f"`rank` names `{pattern}`{_why_not(layers, pattern)}")
    pairs = [(layer, _most_specific(layer.name, rank)) for layer in layers.layers]
    return {layer.name: _checked(layer, rank[pattern], error) for layer, pattern in pairs if pattern is not None}


def named(layers: Layers, rank: Mapping[str, Any], error: type[ShrinkError]) -> Layers:
    """Of all that can be factorized, and of what stays, what patterns name; see `as_told`."""
    ranks = as_told(layers, rank, error)
    stay = {why: [n for n in names if any(fnmatchcase(n, p) for p in rank)] for why, names in layers.stay.items()}
    chosen = [layer for layer in layers.layers if layer.name in ranks]
    return Layers(chosen, {why: names for why, names in stay.items() if names})


def _front(one: Options, kind: int) -> list[Row]:
    """The rows of which no other one costs no more and loses no more, the cheapest first."""
    costs, kept = one.costs[:, kind].numpy(), one.kept.numpy()
    order = np.lexsort((-kept, costs))
    best = np.maximum.accumulate(np.concatenate([[-1.0], kept[order]]))
    places = order[kept[order] > best[:-1]]
    rows = [Row(int(place), int(costs[place]), 1 - float(kept[place])) for place in places]
    return [*rows, Row(None, one.whole[kind], 0.0)]


def _steps(row: Row, unit: int) -> int:
    return -(-row.cost // unit)


def _most_specific(name: str, patterns: Iterable[str]) -> str | None:
    """The name itself, else the pattern that fits with most letters, the last by alphabet of several; None for none."""
    fitting = [pattern for pattern in patterns if fnmatchcase(name, pattern)]
    return max(fitting, key=lambda one: (one == name, len(one.replace("*", "")), one), default=None)


def _why_not(layers: Layers, pattern: str) -> str:
    for reason, names in layers.stay.items():
        if some := [name for name in names if fnmatchcase(name, pattern)]:
            return f", and `{some[0]}` stays: {reason}"
    names = [layer.name for layer in layers.layers]
    return f", which is no layer that can be factorized{nearest(pattern, names)}"


def _checked(layer: Layer, numbers: Any, error: type[ShrinkError]) -> Ranks:
    ranks: Ranks = layer.equal(numbers) if isinstance(numbers, int) else tuple(numbers)
    if len(ranks) != layer.count:
        raise error(f"`rank` of `{layer.name}` is {[*ranks]}", expected="one number, as it becomes two layers")
    limits = layer.limits(tensor([ranks])).flatten().tolist()
    if not isinstance(numbers, int) and any(rank > limit for rank, limit in zip(ranks, limits, strict=True)):
        expected = f"at most {limits}: neither more than its channels, nor than the other for each place of the kernel"
        raise error(f"`rank` of `{layer.name}` is {[*ranks]}", expected=expected)
    if not layer.smaller(tensor([ranks])).item():
        shown = numbers if isinstance(numbers, int) else [*numbers]
        largest = layer.largest()
        expected = f"at most {largest}" if largest else "another layer, as no rank does"
        raise error(f"`rank` {shown} makes `{layer.name}` no smaller", expected=expected)
    return ranks
