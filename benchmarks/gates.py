"""How often a gate is wrong about a model just at its limit, and passes a better one on the samples that it asks for.

    python benchmarks/gates.py [--draws 20000]

Every line is a cell: test size, share of examples that flip, how many of these are lost. Beside retention stands what
the asymptotic score interval of Tang, Tang and Chan (Statistics in Medicine 22, 2003) would have said.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.measure.statistics.pairs import Scores
from pipeline.measure.statistics.samples import Decided, kept, samples_to_decide, undropped, unlost
from pipeline.measure.statistics.shares import difference_ends, ratio_ends, share_ends

SIZES = (400, 1_000, 3_000, 10_000)
FLIPS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05)
LOST = {"losses alone": 1.0, "three of four": 0.75, "eleven of twenty": 0.55}
ACCURACY = 0.9
MIXED = 5000
FIGURES: dict[str, Decided] = {"retention": kept, "drop": undropped, "flips": unlost}
LIKE = ((0.90, 0.0, 0.0, 0.10), (0.895, 0.0, 0.005, 0.10), (0.88, 0.01, 0.02, 0.09), (0.86, 0.025, 0.025, 0.09))
MARGINS = (0.01, 0.02, 0.05)

Truth = tuple[float, float, float, float]
Wrong = dict[str, tuple[float, float]]
"""For each gate the shares of wrong passes and of wrong fails."""


class Limits(NamedTuple):
    """What is exactly true of the models, one number or one a table."""

    retention: Scores | float
    drop: Scores | float
    flips: Scores | float


def truth(accuracy: float, flips: float, lost: float) -> Truth:
    """Chances of both, gained, lost and neither; `lost` is the share of the flips."""
    down = flips * lost
    return accuracy - down, flips - down, down, 1 - accuracy - flips + down


def limits(real: Scores) -> Limits:
    """The figures of one or more truths (..., 4)."""
    both, gained, lost, _ = np.moveaxis(np.asarray(real), -1, 0)
    return Limits((both + gained) / (both + lost), lost - gained, lost)


def wrong(tables: NDArray[np.int64], at: Limits) -> Wrong:
    """What the gates say of tables (K, 4) of models that are exactly at the limits."""
    both, gained, lost, neither = tables.T
    size = both + gained + lost + neither
    low, high = ratio_ends(both, gained, lost)
    found = {"retention": (low >= at.retention, high < at.retention)}
    low, high = difference_ends(size, gained, lost)
    found["drop"] = (high <= at.drop, low > at.drop)
    low, high = share_ends(lost, size)
    found["flips"] = (high <= at.flips, low > at.flips)
    score, z = score_statistic(tables, at.retention), stats.norm.ppf(0.975)
    found["score interval"] = (score >= z, score < -z)
    return {name: (float(passes.mean()), float(fails.mean())) for name, (passes, fails) in found.items()}


def score_statistic(tables: NDArray[np.int64], ratio: Scores | float) -> Scores:
    """Tang's statistic of the ratio; 0 where nothing differs from it."""
    both, gained, lost, neither = tables.T.astype(float)
    first, second, seen = both + gained, both + lost, both + gained + lost
    total = seen + neither
    a, b = total * (1 + ratio), second * ratio**2 - (both + gained + 2 * lost)
    root = np.sqrt(np.maximum(b * b - 4 * a * lost * (1 - ratio) * seen / total, 0))
    variance = total * (1 + ratio) * (root - b) / (2 * a) + seen * (ratio - 1)
    excess = first - ratio * second
    return np.where(variance > 1e-9, excess / np.sqrt(np.maximum(variance, 1e-9)), 0.0)


def cells(draws: int, draw: np.random.Generator) -> Iterator[tuple[str, Wrong]]:
    """Each cell with what the gates say there."""
    for size, flips, (how, lost) in product(SIZES, FLIPS, LOST.items()):
        if flips or lost == 1:
            real = truth(ACCURACY, flips, lost)
            name = f"| {size:,} | {flips:.1%} | {how if flips else '-'} |"
            yield name, wrong(draw.multinomial(size, real, size=draws), limits(np.array(real)))


def mixed(draw: np.random.Generator) -> Wrong:
    """The same of tables of which each has another size, accuracy, share of flips and share of losses."""
    sizes = np.exp(draw.uniform(np.log(SIZES[0]), np.log(SIZES[-1]), MIXED)).astype(int)
    drawn = zip(draw.uniform(0.6, 0.95, MIXED), draw.uniform(0, 0.05, MIXED), draw.uniform(0.5, 1, MIXED), strict=True)
    real = np.array([truth(*each) for each in drawn])
    tables = np.array([draw.multinomial(size, chances) for size, chances in zip(sizes, real, strict=True)])
    return wrong(tables, limits(real))


def powers(draws: int, draw: np.random.Generator) -> Iterator[str]:
    """How often a model above its limit passes on the number of samples that the gate asks for."""
    for real, margin, (name, figure) in product(LIKE, MARGINS, FIGURES.items()):
        limit = figure(1000 * np.array(real)).value - margin
        size = samples_to_decide(real, limit, figure)
        if size:
            tables, counts = np.unique(draw.multinomial(size, real, size=draws), axis=0, return_counts=True)
            passed = [figure(table).low >= limit for table in tables.astype(float)]
            share = counts[passed].sum() / draws
            yield f"| {name} | {real[2]:.1%}, {real[1]:.1%} | {abs(limit):.3f} | {size:,} | {share:.3f} |"


def row(found: Wrong) -> str:
    """The figures of a cell: wrong passes, wrong fails of each gate."""
    return " | ".join(f"{passes:.2%}, {fails:.2%}" for passes, fails in found.values()) + " |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20_000)
    draws, draw = parser.parse_args().draws, np.random.default_rng(0)
    error = 1.96 * sqrt(0.025 * 0.975 / draws)
    print(f"Wrong passes, wrong fails of models just at the limit; allowed 2.50 % each, simulation error {error:.2%}\n")
    names = " | ".join((*FIGURES, "score interval of retention"))
    print(f"| test size | flips | lost of these | {names} |\n|---|---|---|---|---|---|---|")
    worst: Wrong = {}
    for name, found in cells(draws, draw):
        print(name, row(found))
        for gate, shares in found.items():
            before = worst.get(gate, (0.0, 0.0))
            worst[gate] = max(before[0], shares[0]), max(before[1], shares[1])
    print("| worst cell | | |", row(worst))
    print(f"| {MIXED:,} mixed | 0 to 5 % | half to all |", row(mixed(draw)))
    error = 1.96 * sqrt(0.9 * 0.1 / draws)
    print(f"\nPasses on the samples that the gate asks for; promised 0.900, simulation error {error:.3f}\n")
    print("| gate | lost, gained | limit | samples | passes |\n|---|---|---|---|---|")
    for line in powers(draws, draw):
        print(line)


if __name__ == "__main__":
    main()
