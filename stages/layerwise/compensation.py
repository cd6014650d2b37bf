"""Weights that change one input after the other, each change made good by the weights of the inputs that follow."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Choose = Callable[[int, Floats, Floats], Floats]
"""(input, the weights (rows, width) as they are by now, the spread) -> what its weights (rows,) become.

The spread (width,) tells what a change costs: ((w - q) / spread)^2 is what setting w to q adds to the squared error of
the outputs where the weights of the inputs behind it make good what they can."""

DAMPING = 0.01
BLOCK = 64


def compensated(weights: Floats, products: Floats, choose: Choose, block: int = BLOCK) -> Floats:
    """What weights become: (rows, width), for which the outputs weights @ x change little.

    Args:
        weights: (rows, width), their inputs in the order in which they are chosen.
        products: (width, width), the sum of x x^T over the inputs x.
        choose: called for each input in order; what it sees of inputs beyond its block comes up to date with the next.
        block: inputs in one.

    Reference:
        The inverse Hessian by its Cholesky factor, and blocks: Elias Frantar et al., "GPTQ: Accurate Post-Training
        Quantization for Generative Pre-trained Transformers", 2022, arXiv:2210.17323, eq. 2 and 3 and algorithm 1; the
        same of zeros: Elias Frantar, Dan Alistarh, "SparseGPT", 2023, arXiv:2301.00774, algorithm 1.
    """
    width = len(products)
    damped = products + DAMPING * (products.diagonal().mean() or 1.0) * np.eye(width)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest, chosen, spread = weights.astype(np.float64), np.zeros(weights.shape), upper.diagonal()
    for start in range(0, width, block):
        stop = min(start + block, width)
        errors = np.zeros((len(weights), stop - start))
        for i in range(start, stop):
            chosen[:, i] = choose(i, rest, spread)
            errors[:, i - start] = (rest[:, i] - chosen[:, i]) / spread[i]
            rest[:, i + 1 : stop] -= errors[:, i - start, None] * upper[i, i + 1 : stop]
        rest[:, stop:] -= errors @ upper[start:stop, stop:]
    return chosen
