"""Tests of pairs against closed forms and worked examples, intervals against their promise, sentences word by word."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from pipeline.base.estimate import Estimate
from pipeline.measure.gain import lead
from pipeline.measure.statistics.means import retention
from pipeline.measure.statistics.pairs import Scores, mcnemar_p, pairs
from pipeline.measure.strategies.pairwise import (
    RESAMPLES,
    holm,
    indistinguishable,
    p_of,
    pair_tests,
    retention_over_seeds,
    sentences,
)
from pipeline.records.comparison import PairTest


def flipped(scores: Scores, count: int, start: int = 0) -> Scores:
    """The scores with `count` of them the other way round."""
    changed = scores.copy()
    changed[start : start + count] = 1 - changed[start : start + count]
    return changed


def right(count: int, share: float, seed: int = 0) -> Scores:
    return (np.random.default_rng(seed).random(count) < share).astype(np.float64)


def test_holm_by_hand() -> None:
    # 4 x 0.01; 3 x 0.02; 2 x 0.03 = 0.06, and 0.04 gets no less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.005, 0.011, 0.02, 0.04, 0.13]) == pytest.approx([0.025, 0.044, 0.06, 0.08, 0.13])
    assert holm([0.3, 0.9, 0.6]) == pytest.approx([0.9, 1.0, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_holm_keeps_its_properties(seed: int) -> None:
    draw = np.random.default_rng(seed)
    p = np.round(draw.beta(0.5, 2, draw.integers(1, 15)), 2)  # rounded, so that there are ties
    found = np.array(holm(p.tolist()))
    assert (found >= p).all()
    assert (found <= 1).all()
    assert (found <= np.minimum(1, len(p) * p) + 1e-12).all()  # never worse than Bonferroni's
    assert (np.diff(found[np.argsort(p, kind="stable")]) >= 0).all()
    order = draw.permutation(len(p))
    assert np.array(holm(p[order].tolist())) == pytest.approx(found[order])
    # The procedure itself: reject in rising order until the first that is not below alpha / (m - k).
    for alpha in (0.01, 0.05, 0.2):
        rejected = set[int]()
        for k, i in enumerate(np.argsort(p, kind="stable").tolist()):
            if p[i] * (len(p) - k) >= alpha:
                break
            rejected.add(i)
        assert {i for i in range(len(p)) if found[i] < alpha} == rejected


def test_one_seed_of_right_or_wrong_is_exact_mcnemar() -> None:
    first, second = right(300, 0.9), right(300, 0.8, 1)
    assert p_of([first], [second]) == mcnemar_p(pairs(first, second))


def test_flipping_signs_of_few_is_exact_and_agrees_with_mcnemar() -> None:
    # 9 gained and 2 lost among 11: twice the tail of a fair coin, by the sum of signs as by McNemar.
    first, second = np.ones(50), np.ones(50)
    second[:9], first[9:11] = 0, 0
    expected = 2 * stats.binom.cdf(2, 11, 0.5)
    assert p_of([first, first], [second, second]) == pytest.approx(expected)
    assert mcnemar_p(pairs(first, second)) == pytest.approx(expected)


def test_flipping_signs_is_its_enumeration() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.normal(0.6, 1, 10), draw.normal(0, 1, 10)
    differences = first - second
    sums = np.array([np.dot(signs, differences) for signs in product((-1, 1), repeat=10)])
    assert p_of([first], [second]) == pytest.approx((np.abs(sums) >= abs(differences.sum()) - 1e-12).mean())


def test_a_random_draw_of_flips_agrees_with_scipy_and_with_the_t_test() -> None:
    first, second = stats.zscore(np.random.default_rng(1).normal(0, 1, 400)) + 0.13, np.zeros(400)
    found = p_of([first], [second], seed=3)
    reference = stats.permutation_test(
        (first,), np.sum, permutation_type="samples", n_resamples=RESAMPLES, batch=200, vectorized=True, rng=4
    ).pvalue
    error = np.sqrt(reference / RESAMPLES)
    assert 0.005 < found < 0.02
    assert found == pytest.approx(reference, abs=6 * error)
    assert found == pytest.approx(stats.ttest_1samp(first, 0).pvalue, abs=6 * error + 0.002)
    assert found == p_of([first], [second], seed=3)
    assert found != p_of([first], [second], seed=5)


def test_p_of_several_seeds_keeps_its_promise_where_nothing_differs() -> None:
    draw = np.random.default_rng(2)
    p = []
    for _ in range(400):
        chances = draw.beta(5, 1, 200)  # easy and hard examples
        sides = [[(draw.random(200) < chances).astype(np.float64) for _ in range(3)] for _ in range(2)]
        p.append(p_of(*sides))
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.08
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.1)


def test_nothing_moved_is_no_evidence() -> None:
    same = right(100, 0.9)
    assert p_of([same], [same]) == 1.0
    assert p_of([same, same], [same, same]) == 1.0
    assert p_of([same, same], [same, flipped(same, 1)]) == 1.0
    balanced = flipped(flipped(same, 0), 0)
    balanced[:2] = [1, 0]
    other = balanced.copy()
    other[:2] = [0, 1]
    assert p_of([balanced] * 3, [other] * 3) == 1.0


def test_all_pairs_are_tested_with_their_intervals() -> None:
    base = right(400, 0.95)
    scores = {"a": [base], "b": [flipped(base, 40)], "c": [flipped(base, 2, 50)]}
    tests = pair_tests(scores)
    assert [(test.first, test.second) for test in tests] == [("a", "b"), ("a", "c"), ("b", "c")]
    for test in tests:
        first, second = scores[test.first], scores[test.second]
        assert test.difference == lead(first, second)
        assert test.difference.value == pytest.approx(first[0].mean() - second[0].mean())
        assert test.difference.low < test.difference.value < test.difference.high
        assert test.p == mcnemar_p(pairs(first[0], second[0]))
    assert [test.p_adjusted for test in tests] == holm([test.p for test in tests])
    assert [test.distinguishable for test in tests] == [True, False, True]
    assert indistinguishable(tests) == [("a", "c")]


def test_the_correction_is_over_all_pairs() -> None:
    base = np.ones(300)
    near = flipped(base, 6)  # p = 2 / 2^6 = 0.031, alone enough and among three not
    (alone,) = pair_tests({"a": [base], "b": [near]})
    assert alone.distinguishable
    among = pair_tests({"a": [base], "b": [near], "c": [flipped(near, 2, 6)]})[0]
    assert (among.p, among.distinguishable) == (alone.p, False)
    assert among.p < 0.05 < among.p_adjusted


def test_several_seeds_and_graded_scores() -> None:
    draw = np.random.default_rng(3)
    base = draw.normal(0, 1, 500)
    scores = {name: [base + draw.normal(shift, 0.2, 500) for _ in range(2)] for name, shift in (("a", 0.1), ("b", 0))}
    (test,) = pair_tests(scores, seed=1)
    assert test.distinguishable
    assert test.difference == lead(scores["a"], scores["b"], 1)
    assert pair_tests(scores, seed=1) == [test]


def test_over_seeds_an_interval_with_zero_in_it_tells_nothing_apart() -> None:
    good, bad = right(450, 0.99), right(450, 0.90)
    assert pair_tests({"a": [good, good], "b": [bad, bad]})[0].distinguishable
    unsteady = pair_tests({"a": [good, good], "b": [bad, right(450, 0.60)]})[0]
    assert unsteady.p_adjusted < 0.001
    assert unsteady.difference.low < 0 < unsteady.difference.value
    assert not unsteady.distinguishable


def test_without_a_pair_there_is_no_test() -> None:
    assert pair_tests({}) == []
    assert pair_tests({"a": [right(10, 0.5)]}) == []


@pytest.mark.parametrize("other", [[np.ones(4)], [np.ones(5), np.ones(5)]])
def test_what_is_not_paired_is_refused(other: list[Scores]) -> None:
    with pytest.raises(ValueError, match="same seeds and examples"):
        pair_tests({"a": [np.ones(5)], "b": other})


def pair_test(low: float, value: float, high: float, p: float, adjusted: float) -> PairTest:
    return PairTest(
        first="prune",
        second="quantize",
        difference=Estimate(value=value, low=low, high=high),
        p=p,
        p_adjusted=adjusted,
        distinguishable=adjusted < 0.05 and not low <= 0 <= high,
    )


@pytest.mark.parametrize(("test", "expected"), [
    (pair_test(-0.009, 0.002, 0.013, 0.8, 1.0),
     "prune and quantize cannot be told apart on 450 test examples (difference 0.2 points [-0.9, 1.3]); that is not "
     "the same as being equal"),
    (pair_test(-0.009, -0.0004, 0.00999, 0.8, 1.0),
     "prune and quantize cannot be told apart on 450 test examples (difference 0.0 points [-0.9, 1.0]); they are "
     "equal within 1 point"),
    (pair_test(0.001, 0.02, 0.04, 0.03, 0.12),
     "prune and quantize cannot be told apart on 450 test examples (difference 2.0 points [0.1, 4.0]); that is not "
     "the same as being equal. Alone the pair would differ (p = 0.03), among all pairs that may be chance"),
    (pair_test(0.01, 0.03, 0.05, 0.0001, 0.0004),
     "prune is better than quantize on 450 test examples (difference 3.0 points [1.0, 5.0], Holm's p < 0.001)"),
    (pair_test(-0.05, -0.03, -0.01, 0.002, 0.004),
     "quantize is better than prune on 450 test examples (difference 3.0 points [1.0, 5.0], Holm's p = 0.004)"),
    (pair_test(-0.05, 0.03, 0.11, 0.002, 0.004),
     "prune and quantize cannot be told apart on 450 test examples (difference 3.0 points [-5.0, 11.0]); that is "
     "not the same as being equal. These models differ (Holm's p = 0.004), and others of their kind may not: see "
     "the interval"),
    (pair_test(0.001, 0.003, 0.005, 0.002, 0.004),
     "prune is better than quantize on 450 test examples (difference 0.3 points [0.1, 0.5], Holm's p = 0.004); "
     "the two are equal within 1 point all the same"),
])  # fmt: skip
def test_sentences(test: PairTest, expected: str) -> None:
    assert sentences([test], 450) == [expected]


@pytest.mark.parametrize("low", [-0.0101, -0.01])
def test_a_point_is_a_limit_that_is_not_reached(low: float) -> None:
    assert "being equal" in sentences([pair_test(low, 0, 0.002, 1, 1)], 450)[0]


def test_other_scores_than_shares_have_no_points() -> None:
    (text,) = sentences([pair_test(-0.001, 0.0, 0.001, 1, 1)], 12_000, shares=False)
    assert text == (
        "prune and quantize cannot be told apart on 12,000 test examples (difference 0 of score [-0.001, 0.001]); that "
        "is not the same as being equal"
    )


def test_a_real_pair_is_called_equal_only_on_many_examples() -> None:
    few, many = (pair_tests({"a": [right(n, 0.95)], "b": [flipped(right(n, 0.95), n // 200)]}) for n in (200, 20_000))
    assert "being equal" in sentences(few, 200)[0]
    assert "equal within 1 point" in sentences(many, 20_000)[0]


def test_retention_of_one_seed_is_that_of_statistics() -> None:
    model, baseline = right(300, 0.9), right(300, 0.95, 1)
    assert retention_over_seeds([model], [baseline]) == retention(model, baseline)
    graded = np.random.default_rng(4).random((2, 50))
    assert retention_over_seeds([graded[0]], [graded[1]], 7) == retention(graded[0], graded[1], 7)


def test_retention_over_seeds_is_the_mean_of_retentions() -> None:
    baselines = [right(500, 0.95, seed) for seed in range(3)]
    models = [flipped(baseline, 10 * seed) for seed, baseline in enumerate(baselines)]
    found = retention_over_seeds(models, baselines)
    assert found.value == pytest.approx(np.mean([m.mean() / b.mean() for m, b in zip(models, baselines, strict=True)]))
    assert 0 < found.low < found.value < found.high


def test_retention_over_seeds_where_nothing_differs_is_not_certainty() -> None:
    same = right(400, 0.95)
    found = retention_over_seeds([same] * 3, [same] * 3)
    assert found.value == 1.0
    # Half an example more in each cell: a squared deviation of one, over 402 squared and the baseline's mean squared.
    reach = stats.t.ppf(0.975, 399) * 1 / 402 / same.mean()
    assert (found.low, found.high) == pytest.approx((1 - reach, 1 + reach))


def test_retention_over_seeds_is_exact_where_each_score_is_a_share() -> None:
    baseline = np.random.default_rng(5).uniform(0.5, 1, 100)
    found = retention_over_seeds([0.9 * baseline] * 2, [baseline] * 2)
    assert (found.low, found.value, found.high) == pytest.approx((0.9, 0.9, 0.9))


def test_retention_over_seeds_means_nothing_for_scores_below_zero_or_a_baseline_of_zero() -> None:
    ones, zeros = np.ones(10), np.zeros(10)
    assert retention_over_seeds([ones, ones], [ones, zeros]) is None
    assert retention_over_seeds([ones, -ones], [ones, ones]) is None
    found = retention_over_seeds([zeros, zeros], [ones, ones])
    assert (found.low, found.value) == (0.0, 0.0)
    assert found.high > 0


# Examples, seeds, how far seeds are apart, how far a training's luck with each example goes.
WORLDS = [(400, 3, 0.0, 0.3), (400, 3, 0.2, 0.3), (400, 2, 0.05, 0.1), (400, 5, 0.3, 0.3), (2000, 3, 0.1, 0.05)]


@pytest.mark.parametrize(("count", "seeds", "apart", "luck"), WORLDS)
def test_retention_over_seeds_covers_the_truth(count: int, seeds: int, apart: float, luck: float) -> None:
    draw, limit, weaker = np.random.default_rng(0), stats.norm.ppf(0.95), 0.15

    def scores(shift: Scores) -> list[Scores]:
        """Right where an example's difficulty, with a training's luck, is below what the training can do."""
        felt = (hardness + draw.normal(0, luck, (seeds, count))) / np.hypot(1, luck)
        return list((felt < limit + shift[:, None]).astype(np.float64))

    def shifts(size: int) -> tuple[Scores, Scores]:
        return draw.normal(0, apart / 4, size), draw.normal(-weaker, apart, size)

    of_baseline, of_model = (stats.norm.cdf(limit + shift) for shift in shifts(200_000))
    truth, covered, repeats = (of_model / of_baseline).mean(), 0, 600
    for _ in range(repeats):
        hardness = draw.normal(0, 1, count)
        baselines, models = (scores(shift) for shift in shifts(seeds))
        found = retention_over_seeds(models, baselines)
        covered += bool(found and found.low <= truth <= found.high)
    assert covered / repeats > 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / repeats)
