"""Each method against its closed form, or against ONNX Runtime's own where that is right."""

from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits
from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig, HQQWeightOnlyQuantizer

from stages.quantize.blocks.methods import Method, quantized
from stages.quantize.blocks.rows import Rows, packed

RNG = np.random.default_rng(0)
WEIGHTS = (RNG.standard_t(4, (24, 128)) * 0.1).astype(np.float32)
INPUTS = RNG.normal(size=(500, 128)) @ RNG.normal(size=(128, 128))
PRODUCTS = INPUTS.T @ INPUTS


def error(rows: Rows, products: Any = None) -> float:
    change = rows.dequantized - WEIGHTS
    return float((change**2).sum() if products is None else (change @ products * change).sum())


def test_nearest_is_as_far_as_half_a_step() -> None:
    for bits in (8, 4, 2):
        rows = quantized("nearest", WEIGHTS, bits, 32, is_symmetric=False)
        steps = np.repeat(rows.scales, 32, 1)
        assert (np.abs(rows.dequantized - WEIGHTS) <= 0.5001 * steps).all()
        blocks = WEIGHTS.reshape(24, 4, 32)
        spans = np.maximum(blocks.max(2), 0) - np.minimum(blocks.min(2), 0)
        assert rows.scales == pytest.approx(spans / (2**bits - 1), rel=1e-6)


@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_nearest_is_onnx_runtimes(bits: int, is_symmetric: bool) -> None:
    rows = quantized("nearest", WEIGHTS, bits, 32, is_symmetric)
    theirs = np.zeros((24, 4, 32 * bits // 8), np.uint8)
    scales, zeros = np.zeros((24, 4), np.float32), np.zeros((24, bits // 2), np.uint8)
    make = quantize_matmul_8bits if bits == 8 else quantize_matmul_4bits
    make(theirs, WEIGHTS.T.copy(), scales, zeros, 32, 24, 128, is_symmetric)
    assert rows.scales == pytest.approx(scales, rel=1e-5)
    ours = packed(rows.codes, bits)
    assert (ours != theirs).mean() < 0.01  # which way a half goes
    if not is_symmetric:
        assert np.array_equal(packed(np.asarray(rows.zeros), bits), zeros)


def test_hqq_does_as_onnx_runtimes() -> None:
    their_method = HQQWeightOnlyQuantizer(HQQWeightOnlyQuantConfig(block_size=32, bits=4))
    codes, scales, zeros = their_method.quantize_internal(torch.tensor(WEIGHTS), bits=4, group_size=32)
    theirs = Rows(codes.numpy().reshape(24, 4, 32).astype(np.uint8), scales.numpy(), zeros.numpy(), 4, 128)
    ours = quantized("hqq", WEIGHTS, 4, 32, is_symmetric=False)
    assert ours.has_fractions
    norms = [(np.abs(rows.dequantized - WEIGHTS) ** 0.7).mean() for rows in (ours, theirs)]
    assert norms[0] < 1.01 * norms[1]


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_methods_bring_what_they_promise(bits: int) -> None:
    of = {
        m: quantized(m, WEIGHTS, bits, 32, is_symmetric=False, products=PRODUCTS)
        for m in ("nearest", "k_quant", "gptq")
    }
    assert error(of["k_quant"]) < error(of["nearest"])
    assert error(of["gptq"], PRODUCTS) < 0.7 * error(of["nearest"], PRODUCTS)


def test_gptq_of_two_inputs_is_what_the_paper_says() -> None:
    # Eq. 2: the error of the first weight is made good by the second, in proportion to H's inverse.
    products = np.array([[2.0, 1.0], [1.0, 3.0]])
    weights = np.array([[0.34, 1.5], [1.5, -0.1]])
    rows = quantized("gptq", weights, 4, 16, is_symmetric=True, products=products)
    damped = products + 0.01 * products.diagonal().mean() * np.eye(2)
    inverse = np.linalg.inv(damped)
    scale = rows.scales[:, 0].astype(np.float32).astype(np.float64)
    first = np.rint(weights[:, 0] / scale + 8).clip(0, 15) - 8
    moved = weights[:, 1] - (weights[:, 0] - scale * first) / inverse[0, 0] * inverse[0, 1]
    second = np.rint(moved / scale + 8).clip(0, 15) - 8
    assert rows.dequantized == pytest.approx(np.stack([scale * first, scale * second], 1))


@pytest.mark.parametrize("method", ["nearest", "k_quant", "gptq", "hqq"])
def test_a_block_of_one_sign_or_of_zeros_is_kept(method: Method) -> None:
    weights = np.stack([np.linspace(5, 6, 32), -np.linspace(5, 6, 32), np.zeros(32), np.full(32, 1e-30)])
    rows = quantized(method, weights, 4, 32, is_symmetric=False, products=np.eye(32))
    assert np.abs(rows.dequantized - weights).max() < 0.51 * 6 / 15
    assert not rows.dequantized[2].any()


def test_many_rows_are_the_same_in_parts() -> None:
    weights = RNG.normal(size=(5000, 16))
    rows = quantized("k_quant", weights, 4, 16, is_symmetric=False)
    last = quantized("k_quant", weights[-10:], 4, 16, is_symmetric=False)
    assert np.array_equal(rows.codes[-10:], last.codes)
    assert np.array_equal(rows.scales[-10:], last.scales)


def test_gptq_wants_products() -> None:
    with pytest.raises(TypeError, match="products of the inputs"):
        quantized("gptq", WEIGHTS, 4, 32, is_symmetric=False)
