"""The ways to choose whole numbers, scales and zero points of weights in blocks.

ONNX Runtime's tools have these methods too. They are written here because in 1.31 its GPTQ feeds no error forward and
gives what the nearest does (findings/gptq_is_nearest.sh), its k-quant loses blocks whose weights have one sign
(findings/k_quant_one_sign.sh), its HQQ of 8 bits does not run, and its GPTQ and its tables have 4 bits alone.
"""

from typing import Literal

import numpy as np

from stages.layerwise.compensation import compensated
from stages.quantize.blocks.rows import Floats, Rows, in_blocks, joined

Method = Literal["nearest", "k_quant", "gptq", "hqq"]
MOST = 4096
"""Rows that are in work at once: a table of tokens has many."""
STEPS = 20
STEP = 0.1
"""Of k-quant: how many scales it tries, and how far apart, in whole numbers of the range."""
NORM, SHRINK, GROWTH, TURNS = 0.7, 10.0, 1.01, 20
"""Of HQQ: the norm of the error, and how hard it is held to, more with each turn."""


def quantized(
    method: Method, weights: Floats, bits: int, size: int, is_symmetric: bool, products: Floats | None = None
) -> Rows:
    """Weights as whole numbers.

    Args:
        method: nearest; k_quant, the least squared error of which large weights count more; hqq, the least error in a
            norm that forgives outliers; gptq, the least error of what a layer gives for its inputs.
        weights: (rows, width); a row makes one output, or is one of a table.
        bits: 8, 4 or 2.
        size: weights of a block.
        is_symmetric: without zero points; for nearest and gptq.
        products: for gptq the sum of x x^T over the inputs of the layer, (width, width).
    """
    if method == "gptq":
        if products is None:
            raise TypeError("gptq needs the products of the inputs")
        return _gptq(weights, bits, size, is_symmetric, products)
    if len(weights) > MOST:
        parts = [
            quantized(method, weights[i : i + MOST], bits, size, is_symmetric) for i in range(0, len(weights), MOST)
        ]
        return joined(parts)
    blocks = in_blocks(weights, size)
    if method == "hqq":
        scale, zero = _hqq(blocks, bits)
    elif method == "k_quant":
        scale, zero = _k_quant(blocks, bits)
    else:
        scale, zero = ranges(blocks, bits, is_symmetric)
    codes = _codes(blocks, scale, zero, bits)
    return Rows(codes.astype(np.uint8), scale[..., 0], None if is_symmetric else zero[..., 0], bits, weights.shape[1])


def ranges(blocks: Floats, bits: int, is_symmetric: bool) -> tuple[Floats, Floats]:
    """The scale and the zero point (..., 1) with which the whole numbers reach the ends of each block (..., size).

    Zero itself is one of the values. Without zero points the weight of the largest size is -2^(bits - 1) steps from it.
    """
    low, high = np.minimum(blocks.min(-1, keepdims=True), 0), np.maximum(blocks.max(-1, keepdims=True), 0)
    if is_symmetric:
        half = 2 ** (bits - 1)
        scale = _whole(np.where(high > -low, high, low) / -half)
        return scale, np.full_like(scale, half)
    scale = _whole((high - low) / (2**bits - 1))
    return scale, np.rint(-low / scale)


def _whole(scale: Floats) -> Floats:
    """Scales as fp32 holds them, 1 for a block of zeros."""
    exact = scale.astype(np.float32).astype(np.float64)
    return np.where(exact == 0, 1.0, exact)


def _codes(blocks: Floats, scale: Floats, zero: Floats, bits: int) -> Floats:
    return np.rint(blocks / scale + zero).clip(0, 2**bits - 1)


def _k_quant(blocks: Floats, bits: int) -> tuple[Floats, Floats]:
    """Scales and zero points of least squared error, each weight counted by its size and the block's mean size.

    Reference: llama.cpp's k-quants (`make_qkx2_quants`), as ONNX Runtime's `KQuantWeightOnlyQuantConfig` has them; here
    zero is always in the range, and each scale is fitted with the zero point that it is stored with.
    """
    best_scale, best_zero = start, middle = ranges(blocks, bits, is_symmetric=False)
    heed = np.sqrt((blocks**2).mean(-1, keepdims=True)) + np.abs(blocks)
    least = _squared(blocks, start, middle, heed, bits)
    highest, span = 2**bits - 1, start * (2**bits - 1)
    for step in range(STEPS):
        scale = span / (highest - 1 + STEP * step)
        zero = np.rint(middle * start / scale).clip(0, highest)
        for _ in range(2):
            centred = _codes(blocks, scale, zero, bits) - zero
            powers = (heed * centred**2).sum(-1, keepdims=True)
            fitted = (heed * centred * blocks).sum(-1, keepdims=True) / np.where(powers > 0, powers, 1)
            scale = _whole(np.where(powers > 0, fitted, scale))
            error = _squared(blocks, scale, zero, heed, bits)
            is_less = error < least
            best_scale, best_zero = np.where(is_less, scale, best_scale), np.where(is_less, zero, best_zero)
            least = np.minimum(error, least)
    return best_scale, best_zero


def _squared(blocks: Floats, scale: Floats, zero: Floats, heed: Floats, bits: int) -> Floats:
    change = scale * (_codes(blocks, scale, zero, bits) - zero) - blocks
    return np.asarray((heed * change**2).sum(-1, keepdims=True))


def _hqq(blocks: Floats, bits: int) -> tuple[Floats, Floats]:
    """Zero points, with fractions, of least error in a norm below 1.

    Reference: Hicham Badri and Appu Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023,
    https://mobiusml.github.io/hqq_blog.
    """
    scale, zero = ranges(blocks, bits, is_symmetric=False)
    best, least, hold = zero, np.full_like(zero, np.inf), SHRINK
    for _ in range(TURNS):
        codes = _codes(blocks, scale, zero, bits)
        change = blocks - scale * (codes - zero)
        error = (np.abs(change) ** NORM).mean(-1, keepdims=True)
        best, least = np.where(error < least, zero, best), np.minimum(error, least)
        sizes = np.abs(change)
        outliers = np.sign(change) * np.maximum(sizes - (sizes + 1e-8) ** (NORM - 1) / hold, 0)
        zero = (codes - (blocks - outliers) / scale).mean(-1, keepdims=True)
        hold *= GROWTH
    return scale, best


def _gptq(weights: Floats, bits: int, size: int, is_symmetric: bool, products: Floats) -> Rows:
    """Codes for which what the layer gives changes least: each error is fed forward into the weights that follow.

    Reference: Elias Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers", 2022, arXiv:2210.17323, eq. 2 and 3 and algorithm 1; with zero points the scales are k-quant's.
    """
    parts: list[tuple[Floats, Floats, Floats]] = []

    def choose(i: int, rest: Floats, spread: Floats) -> Floats:
        if i % size == 0:
            block = rest[:, i : i + size]
            scale, zero = ranges(block, bits, is_symmetric) if is_symmetric else _k_quant(block, bits)
            parts.append((np.repeat(zero, size, 1), scale, zero))
        codes, scale, zero = parts[-1]
        codes[:, i % size] = _codes(rest[:, i, None], scale, zero, bits)[:, 0]
        return np.asarray(scale[:, 0] * (codes[:, i % size] - zero[:, 0]))

    compensated(weights, products, choose, size)
    codes, scales, zeros = (np.stack(some, 1) for some in zip(*parts, strict=True))
    return Rows(codes.astype(np.uint8), scales[..., 0], None if is_symmetric else zeros[..., 0], bits, weights.shape[1])
