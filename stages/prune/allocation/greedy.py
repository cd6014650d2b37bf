"""Widths for a latency: where a millisecond costs least of what matters, whatever steps kernels like."""

from collections.abc import Iterator, Sequence

import torch

from stages.prune.allocation.latencies import Latencies
from stages.prune.allocation.search import Counts, Scope, step_of, with_count
from stages.prune.coupling.coupled import Coupled


def fastest(
    groups: Sequence[Coupled], latencies: Latencies, seconds: float, scope: Scope, round_to: int
) -> tuple[Counts, float]:
    """Counts whose layers take no longer than that, and what they take; the fastest found where none do.

    From the whole module on one group at a time becomes narrower: that, and as far, as loses least for each second that
    it saves. A width that takes no less time than a larger one is never taken.

    Args:
        groups: what can be removed, with scores.
        latencies: of the layers, by counts.
        seconds: the most that they may take.
        scope: what a loss is: uniform the squared share of a group's channels, else the scores that leave.
        round_to: widths that change are multiples of it; see `kept`.

    Reference: Tien-Ju Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", 2018,
    arXiv:1804.03230, section 3, with a loss of importance in place of trained accuracy.
    """
    losses = [_losses(group, scope) for group in groups]
    counts: Counts = tuple(len(group.scores) for group in groups)
    taken = latencies.of(counts)
    while taken > seconds:
        moves = [
            ((losses[i][count] - losses[i][counts[i]]) / saved, i, count, saved)
            for i, group in enumerate(groups)
            for count, saved in _savings(group, i, counts, latencies, round_to)
        ]
        if not moves:
            break
        _, i, count, saved = min(moves)
        counts, taken = with_count(counts, i, count), taken - saved
    return counts, taken


def _savings(
    group: Coupled, i: int, counts: Counts, latencies: Latencies, round_to: int
) -> Iterator[tuple[int, float]]:
    """Narrower widths of a group that are faster, and the seconds that each saves."""
    step, now = step_of(group, round_to), latencies.of(counts, i)
    for count in range(step, counts[i], step):
        saved = now - latencies.of(with_count(counts, i, count), i)
        if saved > 0:
            yield count, saved


def _losses(group: Coupled, scope: Scope) -> list[float]:
    """(channels + 1,) what is lost where so many stay."""
    size = len(group.scores)
    if scope == "uniform":
        return [((size - count) / size) ** 2 for count in range(size + 1)]
    rising = torch.cat([torch.zeros(1), group.scores.sort().values.cumsum(0)])
    return [float(loss) for loss in rising.flip(0)]
