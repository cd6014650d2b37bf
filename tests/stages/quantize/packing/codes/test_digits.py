import numpy as np
import onnx
import pytest

from stages.quantize.packing.codes.digits import NARROW, WHOLE, Digits, Nibbles, smallest

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("code", [*NARROW, WHOLE, Nibbles()], ids=str)
@pytest.mark.parametrize("count", [1, 2, 5, 7, 8, 9, 40, 1001])
def test_what_is_unpacked_is_what_was_packed(code: Digits | Nibbles, count: int) -> None:
    numbers = RNG.integers(0, code.levels, count)
    packed = code.pack(numbers)
    assert packed.dtype == np.uint8
    assert packed.size == code.size(count)
    assert np.array_equal(code.unpack(packed, count), numbers)


def test_bits_lie_as_numpy_packs_them() -> None:
    numbers = RNG.integers(0, 8, 64)
    planes = [np.packbits((numbers >> bit & 1).reshape(8, 8).T, axis=1, bitorder="little")[:, 0] for bit in range(3)]
    assert np.array_equal(Digits(2, 3).pack(numbers), planes)


def test_nibbles_lie_as_onnx_reads_them() -> None:
    numbers = RNG.integers(0, 16, 17)
    packed = Nibbles().pack(numbers)
    tensor = onnx.helper.make_tensor("x", onnx.TensorProto.UINT4, [17], packed.tobytes(), raw=True)
    assert np.array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int64), numbers)


def test_five_ternary_digits_fill_a_byte() -> None:
    assert Digits(3).in_byte == 5
    assert Digits(3).pack(np.array([1, 2, 0, 1, 2])).tolist() == [[1 + 2 * 3 + 0 * 9 + 1 * 27 + 2 * 81]]


@pytest.mark.parametrize(("levels", "bits"), [
    (2, 1), (3, 1.6), (4, 2), (5, 8 / 3), (6, 8 / 3), (8, 3), (9, 3.2), (10, 4), (16, 4), (27, 4.8), (32, 5), (64, 6),
    (65, 6.4), (128, 7), (129, 8), (256, 8),
])  # fmt: skip
def test_the_smallest_code_has_so_many_bits(levels: int, bits: float) -> None:
    count = 3 * 5 * 8 * 100
    for opset in (20, 21):
        code = smallest(levels, count, opset)
        assert code.levels >= levels
        assert code.size(count) == bits * count / 8
