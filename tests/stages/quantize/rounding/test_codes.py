from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from stages.quantize.rounding.codes import codebook, nearest, uniform
from tests.quantizing import RNG


@pytest.mark.parametrize(("bits", "lowest", "highest"), [
    (8, -127, 127), (7, -64, 63), (4, -8, 7), (3, -4, 3), (2, -2, 1), ("ternary", -1, 1),
])  # fmt: skip
def test_integers_of_some_bits(bits: Any, lowest: int, highest: int) -> None:
    assert uniform(bits).tolist() == [*range(lowest, highest + 1)]
    assert uniform(bits).dtype == np.int8


def test_the_range_of_8_bits_can_be_reduced() -> None:
    assert uniform(8, 64).tolist() == [*range(-64, 65)]


@pytest.mark.parametrize("codes", [[-127, -3, 0, 2, 90, 127], [*range(-8, 8)], [*range(-127, 128)]], ids=len)
def test_the_nearest_code(codes: list[int]) -> None:
    values = RNG.normal(size=500) * 80
    distances = np.abs(values[:, None] - codes)
    chosen = nearest(values, np.array(codes, np.int8))
    np.testing.assert_allclose(np.abs(values - chosen), distances.min(1))


def error(values: Any, codes: Any) -> float:
    return float(((values - nearest(values, np.asarray(codes, np.int8))) ** 2).sum())


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_codebook_is_the_best_of_all(size: int) -> None:
    for values in (RNG.normal(size=60) * 4, RNG.uniform(-9, 3, 40), np.array([5.5, 5.5, -5.5, 0.5])):
        best = min(error(values, codes) for codes in combinations(range(-7, 8), size))
        codes = codebook(values, size, highest=7)
        assert len(codes) == size
        assert error(values, codes) == pytest.approx(best)


def test_a_codebook_is_no_worse_than_scipys_kmeans() -> None:
    values = RNG.normal(size=4000)
    values *= 127 / np.abs(values).max()
    for size in (4, 16, 32):
        runs = [kmeans2(values, size, minit="++", seed=seed)[0] for seed in range(5)]
        theirs = min(error(values, np.unique(np.rint(centres))) for centres in runs)
        assert 0.9 * theirs < error(values, codebook(values, size)) <= theirs


def test_zero_stays_a_value_where_weights_are_zero() -> None:
    values = np.concatenate([RNG.normal(size=200) * 20 + 50, np.zeros(1)])
    assert 0 not in codebook(values[:-1], 3)
    assert 0 in codebook(values, 3)


def test_a_codebook_has_no_more_values_than_there_are_integers() -> None:
    assert codebook(RNG.normal(size=1000) * 30, 256).tolist() == [*range(-127, 128)]
    assert len(codebook(RNG.normal(size=1000) * 30, 256, highest=64)) == 129
