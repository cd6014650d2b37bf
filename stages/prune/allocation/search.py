"""From a cost to channel counts: how many channels each group keeps so that the model is just within its target."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import torch

from pipeline.errors import StageError
from stages.prune.coupling.coupled import Coupled
from stages.prune.coupling.parts import Place
from stages.prune.coupling.telling import counted

Scope = Literal["uniform", "global", "sensitivity"]
Counts = tuple[int, ...]
"""Channels that are kept, for each group of coupled channels and each of its parts."""

HALVINGS = 30


def solve(
    groups: Sequence[Coupled], cost: Callable[[Counts], float], target: float, scope: Scope, round_to: int
) -> tuple[float, Counts]:
    """The pruning ratio, and the counts of the largest model found whose cost is at most `target`.

    Bisects the ratio. As rounding makes many layers jump at the same ratio, it then gives one step of channels back to
    each group where the target still holds: first where it costs most, as one packs a bin, and among equals where the
    channels matter most.

    Args:
        groups: what can be removed.
        cost: of the model with these counts, falling with each of them; called once for each set of counts.
        target: in the unit of `cost`.
        scope, round_to: see `kept`.

    Raises:
        StageError: the cost stays above the target however much is removed.
    """
    cost = cache(cost)
    low, high = 0.0, 1.0
    ensure_within_reach(groups, cost, target, scope, round_to)
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        low, high = (low, ratio) if cost(kept(groups, ratio, scope, round_to)) <= target else (ratio, high)
    return high, _filled(groups, kept(groups, high, scope, round_to), cost, target, round_to)


def ensure_within_reach(
    groups: Sequence[Coupled],
    cost: Callable[[Counts], float],
    target: float,
    scope: Scope,
    round_to: int,
    full: float | None = None,
) -> None:
    """Raise StageError where the cost stays above the target however much is removed; see `solve`.

    The error says what share can be reached where `full` says what the target is a share of.
    """
    if (least := cost(kept(groups, 1.0, scope, round_to))) > target:
        problem = f"the cost is still {least:,.0f} with all channels removed that can be"
        share = math.ceil(1000 * least / full) / 1000 if full else 1
        reachable = f" to {share:g} or more" if share < 1 else ""
        fix = f"Raise the target{reachable}, lower round_to or shorten ignore"
        raise StageError(problem, expected=f"at most {target:,.0f}", fix=fix)


def kept(groups: Sequence[Coupled], ratio: float, scope: Scope, round_to: int) -> Counts:
    """Counts after the least important channels are removed.

    Args:
        groups: what can be removed.
        ratio: share of the channels to remove, 0 to 1, before rounding.
        scope: "uniform" removes that share of each group; else it is removed of all channels ranked together, whose
            scores are effects for "sensitivity".
        round_to: widths that change become the nearest multiple of it, at least one; a group that is no wider than
            `round_to` stays as it is.
    """
    sizes = [len(group.scores) for group in groups]
    if scope == "uniform":
        targets = [size * (1 - ratio) for size in sizes]
    else:
        ranked = torch.cat([group.scores for group in groups]).sort().values
        first = int(ratio * len(ranked))
        threshold = float(ranked[first]) if first < len(ranked) else math.inf
        targets = [float((group.scores >= threshold).sum()) for group in groups]
    return tuple(_rounded(w, size, step_of(g, round_to)) for w, size, g in zip(targets, sizes, groups, strict=True))


def removed(group: Coupled, count: int) -> list[int]:
    """The least important channels of the root, so that `count` scores stay; equal ones by position."""
    least = torch.argsort(group.scores, stable=True)[: len(group.scores) - count]
    return [int(channel) for channel in torch.isin(group.labels, least).nonzero()]


def lost(groups: Sequence[Coupled], counts: Counts) -> dict[str, list[int]]:
    """The channels that each group loses, by its root, where so many stay."""
    pairs = zip(groups, counts, strict=True)
    return {group.root: removed(group, count) for group, count in pairs if count < len(group.scores)}


def told_widths(groups: Sequence[Coupled], counts: Counts) -> str:
    """How wide which layers are before, and where so many channels stay; without those that have some of a group's."""
    widths, uneven = dict[str, tuple[int, int]](), set[str]()
    for group, count in zip(groups, counts, strict=True):
        for layer in group.layers:
            labels = group.places[Place(layer, "out")]
            of_each = torch.bincount(labels[labels >= 0], minlength=len(group.scores))
            old, new = widths.get(layer, (len(labels), len(labels)))
            widths[layer] = (old, new - int(of_each[0]) * (len(group.scores) - count))
            uneven |= {layer} if (of_each != of_each[0]).any() else set()
    by_widths: dict[str, list[str]] = {}
    for layer, (old, new) in widths.items():
        if new < old and layer not in uneven:
            by_widths.setdefault(f"{old} to {new}", []).append(layer)
    return "; ".join(f"{change} in {counted(names)}" for change, names in by_widths.items())


def step_of(group: Coupled, round_to: int) -> int:
    """Scores that must be removed at a time for the width to stay a multiple of `round_to`."""
    each = int((group.labels >= 0).sum()) // len(group.scores)
    return math.lcm(each, round_to) // each


def _rounded(target: float, size: int, step: int) -> int:
    if size <= step:
        return size
    below = int(target // step) * step
    above = min(size, below + step)
    return max(below if target - below < above - target else above, step)


def _filled(
    groups: Sequence[Coupled], counts: Counts, cost: Callable[[Counts], float], target: float, round_to: int
) -> Counts:
    returns = []
    for i, (group, count) in enumerate(zip(groups, counts, strict=True)):
        wider = min(count + step_of(group, round_to), len(group.scores))
        if wider > count:
            importance = group.scores.sort(descending=True).values[count:wider].mean()
            returns.append((cost(with_count(counts, i, wider)), float(importance), i, wider))
    for _, _, i, wider in sorted(returns, reverse=True):
        more = with_count(counts, i, wider)
        counts = more if cost(more) <= target else counts
    return counts


def with_count(counts: Counts, i: int, count: int) -> Counts:
    """The counts with another one for a group."""
    return (*counts[:i], count, *counts[i + 1 :])
