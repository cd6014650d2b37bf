"""How far two answers to the same examples are apart, as one number an example."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.targets.labelling import Labelling
from pipeline.measure.agreement import kl_divergence

Array = NDArray[Any]
TEMPERATURE = 4.0
"""Of logits: at 1 the few examples of which a network is unsure decide the mean, and it takes thousands of them."""


def divergence(answer: Array, other: Array, labelling: Labelling | None) -> NDArray[np.float64]:
    """(B,) T^2 KL(softmax(z / T) || softmax(z' / T)) in nats of logits z at temperature T = 4.

    Of other answers it is the squared difference over the mean square.

    Args:
        answer, other: (B, ...), of which the first is the reference.
        labelling: the task's where answers are logits, else None.

    Reference: Geoffrey Hinton, Oriol Vinyals and Jeff Dean, "Distilling the Knowledge in a Neural Network", 2015,
    arXiv:1503.02531, section 2: so scaled, it tends to the squared difference of the logits as T grows.
    """
    if labelling:
        first, second = (torch.from_numpy(np.asarray(array, np.float32)) / TEMPERATURE for array in (answer, other))
        return np.asarray(kl_divergence(first, second, labelling).numpy()) * TEMPERATURE**2
    one, two = (np.asarray(array, np.float64).reshape(len(array), -1) for array in (answer, other))
    return np.asarray(((one - two) ** 2).mean(1) / max(float((one**2).mean()), 1e-30))
