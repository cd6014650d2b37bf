"""Rounding that keeps what a layer gives for its inputs, rather than each of its weights."""

import numpy as np
from numpy.typing import NDArray

from stages.layerwise.compensation import compensated
from stages.quantize.rounding.codes import Floats, Integers, nearest

BLOCK = 64
SWEEPS = 4
Mask = NDArray[np.bool_]


def adapted(weights: Floats, scale: Floats, codes: Integers, products: Floats) -> Integers:
    """Codes q for which what the layer gives changes least: tr((w - s q) H (w - s q)^T), by feeding errors forward.

    One input after the other, the most active first, is rounded to the nearest code, and what that changes in the
    output is made good by the weights of the inputs that follow. Then each is chosen anew with all others held, which
    never makes it worse. Weights that are exactly 0 stay 0 where that is a code.

    Args:
        weights: (channels, width).
        scale: (channels, 1) or (1, 1).
        codes: the integers that weights may become, ascending.
        products: H (width, width), the sum of x x^T over the inputs x of the layer.

    Reference: Elias Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers", 2022, arXiv:2210.17323, eq. 2 and 3 and algorithm 1; the objective is that of Markus Nagel et al.,
    "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020, arXiv:2004.10568, eq. 20.
    """
    fixed = (weights == 0) & (0 in codes)
    start = nearest(weights / scale, codes)
    forward = np.where(fixed, 0, _fed_forward(weights, scale, codes, products, fixed)).astype(np.int8)
    swept = [_swept(weights, scale, codes, products, fixed, q) for q in (start, forward)]
    changes = [weights - scale * q for q in swept]
    errors = [(change @ products * change).sum(1, keepdims=True) for change in changes]
    return np.where(errors[1] <= errors[0], swept[1], swept[0])


def _fed_forward(weights: Floats, scale: Floats, codes: Integers, products: Floats, fixed: Mask) -> Integers:
    order = np.argsort(-products.diagonal(), kind="stable")
    fixed, step = fixed[:, order], scale[:, 0]

    def choose(i: int, rest: Floats, spread: Floats) -> Floats:
        return np.where(fixed[:, i], 0, step * nearest(rest[:, i] / step, codes))

    rounded = compensated(weights[:, order], products[np.ix_(order, order)], choose)
    return np.rint(rounded / scale).astype(np.int8)[:, np.argsort(order)]


def _swept(
    weights: Floats, scale: Floats, codes: Integers, products: Floats, fixed: Mask, integers: Integers
) -> Integers:
    integers, scale = integers.copy(), scale[:, 0]
    slopes = (scale[:, None] * integers - weights) @ products
    active = np.flatnonzero(products.diagonal() > 0)
    for _ in range(SWEEPS):
        before = integers.copy()
        for block in np.array_split(active, range(BLOCK, len(active), BLOCK)):
            inner, moves = slopes[:, block], np.zeros((len(weights), len(block)))
            for j, i in enumerate(block):
                best = scale * integers[:, i] - inner[:, j] / products[i, i]
                chosen = np.where(fixed[:, i], 0, nearest(best / scale, codes))
                moves[:, j] = scale * (chosen - integers[:, i].astype(np.float64))
                integers[:, i] = chosen
                inner += moves[:, j, None] * products[i, block]
            slopes += moves @ products[block]
        if np.array_equal(before, integers):
            break
    return integers
