import numpy as np
import pytest

from stages.quantize.blocks.rows import Rows, in_blocks, packed


def test_numbers_fill_bytes_from_the_lowest_bits() -> None:
    assert packed(np.array([[1, 15, 2]]), 4).tolist() == [[0xF1, 0x02]]
    assert packed(np.array([[3, 0, 1, 2, 3]]), 2).tolist() == [[0b10010011, 3]]
    assert packed(np.array([[7, 255]]), 8).tolist() == [[7, 255]]


def test_the_last_block_of_a_row_is_filled_with_zeros() -> None:
    assert in_blocks(np.ones((2, 5)), 4).tolist() == [[[1, 1, 1, 1], [1, 0, 0, 0]]] * 2


@pytest.mark.parametrize(("zeros", "values"), [(None, [-2.0, 0.0, 2.0]), (np.array([[0.5]]), [-0.5 * 2, 1 * 1.0, 3.0])])
def test_codes_stand_for_their_distance_from_zero(zeros: np.ndarray | None, values: list[float]) -> None:
    codes = np.array([[[1, 2, 3, 0]]] if zeros is None else [[[0, 1, 2, 0]]], np.uint8)
    rows = Rows(codes, np.array([[2.0]]), zeros, bits=2, width=3)
    assert rows.dequantized.tolist() == [values]
    assert rows.has_fractions == (zeros is not None)
