import numpy as np
import pytest

from stages.quantize.halves.numbers import Kind, halved, loss


@pytest.mark.parametrize(("kind", "bits"), [("fp16", 11), ("bf16", 8)])
def test_numbers_keep_so_many_bits(kind: Kind, bits: int) -> None:
    array = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    back = halved(array, kind).astype(np.float32)
    assert (np.abs(back - array) <= 2.0**-bits * np.abs(array)).all()
    assert loss(array, kind).error == pytest.approx(float(((back - array) ** 2).sum() / (array**2).sum()), rel=1e-4)


def test_what_overflows_and_what_vanishes_is_counted() -> None:
    array = np.array([1, 7e4, -1e9, 1e-9, 0, np.inf], np.float32)
    assert loss(array, "fp16")[:2] == (2, 1)
    assert loss(array, "bf16")[:2] == (0, 0)
    assert loss(np.array([65504.0, 65519.0], np.float32), "fp16").overflowing == 0
    assert loss(np.zeros(3, np.float32), "fp16").error == 0
