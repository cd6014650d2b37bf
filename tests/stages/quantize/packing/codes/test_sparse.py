import numpy as np
import pytest

from stages.quantize.packing.codes.sparse import WIDTHS, expected_bits, gaps_of, numbers_of

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("share", [0.003, 0.1, 0.9])
@pytest.mark.parametrize("multiple", [1, 40])
def test_gaps_lead_back_to_the_numbers(bits: int, share: float, multiple: int) -> None:
    numbers = RNG.integers(1, 100, 3000) * (RNG.random(3000) < share)
    sparse = gaps_of(numbers, bits, multiple)
    assert sparse.gaps.min() >= 0
    assert sparse.gaps.max() < 2**bits
    assert len(sparse.gaps) % multiple == 0
    assert np.array_equal(numbers_of(sparse, 3000), numbers)


@pytest.mark.parametrize("places", [[0], [29], [0, 1, 2], [0, 29], [4, 8, 12]])
def test_ends_and_steps_of_exactly_a_gap(places: list[int]) -> None:
    numbers = np.zeros(30, np.int64)
    numbers[places] = 7
    assert np.array_equal(numbers_of(gaps_of(numbers, 2), 30), numbers)


def test_no_place_has_two_values() -> None:
    numbers = RNG.integers(1, 4, 500) * (RNG.random(500) < 0.02)
    places = np.cumsum(gaps_of(numbers, 2, 40).gaps)
    assert len(np.unique(places)) == len(places)


def test_the_expected_bits_are_those_of_random_places() -> None:
    share, count = 0.1, 200_000
    numbers = RNG.integers(1, 16, count) * (RNG.random(count) < share)
    bits = min((width + 4) * len(gaps_of(numbers, width).gaps) for width in WIDTHS)
    assert bits / np.count_nonzero(numbers) == pytest.approx(expected_bits(share, 4), rel=0.01)
