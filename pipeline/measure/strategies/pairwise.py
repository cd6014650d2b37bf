"""Whether two strategies can be told apart on the same test examples, said without claiming more than that."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt

import numpy as np
import scipy

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import difference_text
from pipeline.measure.gain import lead, student_t
from pipeline.measure.statistics.means import retention
from pipeline.measure.statistics.pairs import Scores, is_right_or_wrong, mcnemar_p, pairs
from pipeline.measure.statistics.shares import LEVEL
from pipeline.records.comparison import PairTest

ALPHA = 1 - LEVEL
SAME = 0.01  # of score, within which two are called equal: a point
RESAMPLES = 9999
AT_ONCE = 2_000_000  # signs in memory


def pair_tests(scores: Mapping[str, Sequence[Scores]], seed: int = 0) -> list[PairTest]:
    """A test for each pair of strategies, in the order of the strategies, with Holm's correction over all pairs.

    The difference is the mean score of the first minus that of the second, with the paired 95 % interval of
    `pipeline.measure.gain.lead`; the intervals are not corrected for their number. p is of the exact McNemar test for
    right-or-wrong scores of one seed. Otherwise it is of a permutation test that flips the signs of the examples'
    differences, averaged over seeds. So with several seeds p speaks about these trainings, whose mean it compares:
    whether new seeds would show the same is for the interval to say, which has the doubt of seeds as well. Two are told
    apart only where both say so.

    Args:
        scores: by strategy, an array (N,) for each seed, on the same examples and of the same seeds for all.
        seed: of the permutations and of the bootstrap.

    Raises:
        ValueError: numbers of seeds or of examples differ.

    Reference:
        McNemar: Note on the sampling error of the difference between correlated proportions or percentages,
        Psychometrika 12, 1947.
        Fisher: The Design of Experiments, 1935, section 21, the test of signs flipped.
    """
    shapes = {name: [values.shape for values in by_seed] for name, by_seed in scores.items()}
    if any(shape != next(iter(shapes.values())) for shape in shapes.values()):
        raise ValueError(f"scores are to be of the same seeds and examples, these are of {shapes}")
    couples = list(combinations(scores, 2))
    values = [p_of(scores[first], scores[second], seed) for first, second in couples]
    differences = [lead(scores[first], scores[second], seed) for first, second in couples]
    return [
        PairTest(
            first=first,
            second=second,
            difference=difference,
            p=p,
            p_adjusted=adjusted,
            distinguishable=adjusted < ALPHA and not difference.low <= 0 <= difference.high,
        )
        for (first, second), difference, p, adjusted in zip(couples, differences, values, holm(values), strict=True)
    ]


def p_of(firsts: Sequence[Scores], seconds: Sequence[Scores], seed: int = 0) -> float:
    """How often chance alone would make a difference as large as this one; see `pair_tests`.

    Args:
        firsts, seconds: scores (N,) for each seed.
        seed: of the flips; all of them are taken where there are no more than `RESAMPLES`, else a random draw.
    """
    if len(firsts) == 1 and is_right_or_wrong(firsts[0], seconds[0]):
        return mcnemar_p(pairs(firsts[0], seconds[0]))
    # Sums, not means: those of right-or-wrong scores are whole numbers, so that ties are ties.
    differences = np.sum(firsts, axis=0) - np.sum(seconds, axis=0)
    nonzero = differences[differences != 0]  # a zero has no sign to flip
    if len(nonzero) < 2:
        return 1.0
    if 2 ** len(nonzero) <= RESAMPLES:
        every = scipy.stats.permutation_test((nonzero,), np.sum, permutation_type="samples", n_resamples=RESAMPLES)
        return float(every.pvalue)
    draw = np.random.default_rng(seed)
    # What permutation_test would draw, in a tenth of its time for thousands of examples.
    test = scipy.stats.monte_carlo_test(
        nonzero,
        lambda size: nonzero * (2 * draw.integers(0, 2, size, dtype=np.int8) - 1),
        np.sum,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, AT_ONCE // len(nonzero)),
    )
    return float(test.pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """The p values as they are after all of them were tested: with these, one wrong claim among all has p's chance.

    The k-th smallest of m, from k = 0, is multiplied by m - k; none gets less than a smaller one, nor more than 1.

    Reference:
        Holm: A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for k, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - k) * p[i]))
        adjusted[i] = largest
    return adjusted


def indistinguishable(tests: Sequence[PairTest]) -> list[tuple[str, str]]:
    """The pairs that cannot be told apart, which does not say that they are equal."""
    return [(test.first, test.second) for test in tests if not test.distinguishable]


def sentences(tests: Sequence[PairTest], samples: int, *, shares: bool = True) -> list[str]:
    """What each test says, a sentence for each.

    Two are called equal within a point only where the whole interval lies within a point, which is two one-sided tests
    at 2.5 % each; that no difference was found is never enough.

    Args:
        tests: of `pair_tests`.
        samples: number of test examples.
        shares: whether scores are from 0 to 1, so that a hundredth is a point; otherwise none are called equal.

    Reference:
        Schuirmann: A comparison of the two one-sided tests procedure and the power approach for assessing the
        equivalence of average bioavailability, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987.
    """
    return [_sentence(test, samples, shares) for test in tests]


def _sentence(test: PairTest, samples: int, shares: bool) -> str:
    better, worse, difference = test.first, test.second, test.difference
    if test.distinguishable and difference.value <= 0:
        better, worse, difference = worse, better, -difference
    is_equal = shares and difference.low > -SAME and difference.high < SAME
    on = f"on {samples:,} test examples"
    figures = f"difference {difference_text(difference, shares=shares)}"
    if test.distinguishable:
        text = f"{better} is better than {worse} {on} ({figures}, Holm's {_p(test.p_adjusted)})"
        return text + ("; the two are equal within 1 point all the same" if is_equal else "")
    text = f"{test.first} and {test.second} cannot be told apart {on} ({figures})"
    if is_equal:
        return f"{text}; they are equal within 1 point"
    text += "; that is not the same as being equal"
    if test.p_adjusted < ALPHA:
        text += (
            f". These models differ (Holm's {_p(test.p_adjusted)}), and others of their kind may not: see the interval"
        )
    elif test.p < ALPHA:
        text += f". Alone the pair would differ ({_p(test.p)}), among all pairs that may be chance"
    return text


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def retention_over_seeds(models: Sequence[Scores], baselines: Sequence[Scores], seed: int = 0) -> Estimate | None:
    """Mean retention over seeds, with a paired 95 % interval; None where a retention means nothing.

    For one seed it is `pipeline.measure.statistics.means.retention`. For several there are two sources of doubt, as in
    `pipeline.measure.gain.lead`: the seeds, by the deviation of their retentions; and the examples, by the delta
    method: an example's part in a retention r = mean(m) / mean(b) is (m - r b) / mean(b), averaged over seeds.
    Right-or-wrong scores get half an example more in each cell of their table, so that the interval has width even
    where nothing differs. The reach of both is the root of the sum of the squares of each one's own, with Student's t
    of its own degrees of freedom: one t for both is too narrow where the few seeds differ much (coverage 0.92 of
    0.95). What is counted in both makes it a little wide, and two seeds make it very wide.

    Args:
        models, baselines: scores (N,) for each seed, on the same examples. Where the baseline is the same for all
            seeds, the doubt of its training is not in the interval.
        seed: of the bootstrap for one seed.

    Reference:
        Zou and Donner: Construction of confidence limits about effect measures: a general approach, Statistics in
        Medicine 27, 2008.
        Oehlert: A note on the delta method, The American Statistician 46, 1992.
        Agresti and Min: Simple improved confidence intervals for comparing matched proportions, Statistics in
        Medicine 24, 2005: half an observation more in each cell.
    """
    if len(models) == 1:
        return retention(models[0], baselines[0], seed)
    model, baseline = np.stack(models), np.stack(baselines)
    base = baseline.mean(axis=1, keepdims=True)
    if (base <= 0).any() or min(model.min(), baseline.min()) < 0:
        return None
    by_seed = model.mean(axis=1, keepdims=True) / base
    parts = ((model - by_seed * baseline) / base).mean(axis=0)
    seeds, count = model.shape
    value, squares = float(by_seed.mean()), float((parts**2).sum())
    of_examples = squares / max(count - 1, 1) / count
    if is_right_or_wrong(*models, *baselines):
        half = ((1 - value) ** 2 + value**2 + 1) / 2 / float(base.mean()) ** 2
        of_examples = (squares + half) / (count + 2) ** 2
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    reach = sqrt(of_seeds * student_t(seeds) ** 2 + of_examples * student_t(count) ** 2)
    return Estimate(value=value, low=max(value - reach, 0.0), high=value + reach)
