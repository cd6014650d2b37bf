"""Which pairs can saturate."""

from itertools import product

import numpy as np
import pytest

from pipeline.measure.isa.graphs.pairs import BYTE, LEAST, MOST, joined, saturable


def test_it_is_those_of_which_some_bytes_leave_16_bits() -> None:
    sides = (-128, -127, -66, -65, -64, -2, -1, 0, 1, 2, 63, 64, 65, 66, 127)
    weight = np.array(list(product(sides, sides)), np.int8).T
    pairs = saturable(weight)
    for column, (first, second) in enumerate(weight.T.tolist()):
        sums = [a * first + b * second for a, b in product((0, BYTE), (0, BYTE))]
        assert (column in pairs.column) == (max(sums) > MOST or min(sums) < LEAST), (first, second)
    assert (np.sign(pairs.weights) == pairs.signs[:, None]).all()


def test_seven_bits_never_saturate() -> None:
    assert not saturable(np.full((4, 3), 64, np.int8)).size
    assert not saturable(np.full((4, 3), -64, np.int8)).size
    assert saturable(np.array([[64], [65]], np.int8)).size == 1


@pytest.mark.parametrize(("weight", "places"), [
    ([127, 127, 127, 127], [(0, 1), (2, 3)]),
    ([0, 127, 127, 0], []),  # neighbours, but of two pairs
    ([127, 127, 127], [(0, 1)]),  # the last one is alone
    ([127], []),
])  # fmt: skip
def test_pairs_are_neighbours_from_the_first_on(weight: list[int], places: list[tuple[int, int]]) -> None:
    pairs = saturable(np.array(weight, np.int8)[:, None])
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == places


def test_they_are_in_the_order_of_columns() -> None:
    pairs = saturable(np.full((6, 4), 127, np.int8))
    assert pairs.column.tolist() == sorted(pairs.column.tolist())
    assert joined([pairs, pairs]).size == 2 * pairs.size == 24
