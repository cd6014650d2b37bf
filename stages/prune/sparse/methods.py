"""Magnitude, Wanda and SparseGPT: the weights of one layer with zeros among them."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from stages.layerwise.compensation import BLOCK, compensated
from stages.prune.sparse.masks import (
    Amount,
    Floats,
    Mask,
    Pattern,
    lowest,
    lowest_of_layers,
    lowest_of_pattern,
    lowest_of_rows,
    zeros_of,
)

Method = Literal["magnitude", "wanda", "sparsegpt"]
WINDOW = 128
"""Inputs among whose weights SparseGPT chooses at once."""


def pruned_together(blocks: Mapping[str, Floats], share: float) -> dict[str, Floats]:
    """The blocks of several weights, by name, without a share of the numbers of all, by LAMP."""
    masks = lowest_of_layers(blocks, share)
    return {name: np.where(masks[name], 0, own) for name, own in blocks.items()}


def pruned(blocks: Floats, amount: Amount, method: Method, sums: Floats | None) -> Floats:
    """The blocks (groups, rows, width) of a weight with zeros by a method; by magnitude where no inputs were seen.

    Args:
        blocks: (groups, rows, width).
        amount: the share of zeros, or their pattern.
        method: of choosing them.
        sums: of the inputs, as the method wants them.
    """
    if sums is None or method == "magnitude":
        return by_magnitude(blocks, amount)
    return by_wanda(blocks, sums, amount) if method == "wanda" else by_sparsegpt(blocks, sums, amount)


def by_magnitude(blocks: Floats, amount: Amount) -> Floats:
    """Without the smallest numbers of blocks (groups, rows, width), of all together or by the pattern."""
    scores = np.abs(blocks).reshape(-1, blocks.shape[-1])
    mask = (
        lowest_of_pattern(scores, amount)
        if isinstance(amount, Pattern)
        else lowest(scores, zeros_of(scores.size, amount))
    )
    return np.where(mask.reshape(blocks.shape), 0, blocks)


def by_wanda(blocks: Floats, squares: Floats, amount: Amount) -> Floats:
    """Without the numbers of each row whose magnitude times the norm of their input is smallest.

    Args:
        blocks: (groups, rows, width).
        squares: (groups, width) the sum of each input's squares.
        amount: the share of zeros, or their pattern.

    Reference: Mingjie Sun, Zhuang Liu, Anna Bair, J. Zico Kolter, "A Simple and Effective Pruning Approach for Large
    Language Models", 2023, arXiv:2306.11695, equation 1.
    """
    scores = np.where(blocks == 0, -1, np.abs(blocks) * np.sqrt(squares)[:, None]).reshape(-1, blocks.shape[-1])
    mask = lowest_of_pattern(scores, amount) if isinstance(amount, Pattern) else lowest_of_rows(scores, amount)
    return np.where(mask.reshape(blocks.shape), 0, blocks)


def by_sparsegpt(blocks: Floats, products: Floats, amount: Amount) -> Floats:
    """With the zeros that cost the outputs least, and what they cost made good by the weights that stay.

    Args:
        blocks: (groups, rows, width).
        products: (groups, width, width) the sum of x x^T over the inputs x of each group.
        amount: the share of zeros, or their pattern; a share is that of every 128 inputs.

    Reference: Elias Frantar, Dan Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
    2023, arXiv:2301.00774, algorithm 1.
    """
    block = max(BLOCK // amount.of, 1) * amount.of if isinstance(amount, Pattern) else WINDOW
    pruned, size = np.empty(blocks.shape), blocks[0].size
    for number, (weights, own) in enumerate(zip(blocks, products.astype(np.float64), strict=True)):
        choose = _choice(weights, own.diagonal() > 0, amount, number * size)
        pruned[number] = compensated(weights, own, choose, block)
    return pruned


def _choice(weights: Floats, active: Mask, amount: Amount, before: int) -> Callable[[int, Floats, Floats], Floats]:
    """Chooses zeros a window of inputs at a time, when the first of them comes; zeros that there are stay.

    Args:
        weights: (rows, width) as they come in.
        active: (width,) which inputs are ever other than zero; the weights of others cost nothing.
        amount: the share of zeros, or their pattern.
        before: numbers of the groups before, so that rounding does not add up.
    """
    zeros, rows = weights == 0, len(weights)
    window = amount.of if isinstance(amount, Pattern) else WINDOW

    def choose(i: int, rest: Floats, spread: Floats) -> Floats:
        if i % window == 0:
            part = slice(i, min(i + window, weights.shape[1]))
            costs = np.where(active[part], (rest[:, part] / spread[part]) ** 2, 0)
            scores = np.where(zeros[:, part], -1, costs)
            if isinstance(amount, Pattern):
                zeros[:, part] |= lowest_of_pattern(scores, amount)
            else:
                first, last = (zeros_of(before + rows * end, amount) for end in (part.start, part.stop))
                zeros[:, part] |= lowest(scores, last - first)
        return np.where(zeros[:, i], 0, rest[:, i])

    return choose
