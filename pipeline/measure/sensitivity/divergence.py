"""How far two answers to the same examples are apart, as one number an example."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.targets.labelling import Labelling
from pipeline.measure.agreement import kl_divergence

Array = NDArray[Any]


def divergence(answer: Array, other: Array, labelling: Labelling | None) -> NDArray[np.float64]:
    """(B,) KL divergence in nats of logits; of other answers the squared difference over the mean square.

    Args:
        answer, other: (B, ...), of which the first is the reference.
        labelling: the task's where answers are logits, else None.
    """
    if labelling:
        first, second = (torch.from_numpy(np.asarray(array, np.float32)) for array in (answer, other))
        return np.asarray(kl_divergence(first, second, labelling).numpy())
    one, two = (np.asarray(array, np.float64).reshape(len(array), -1) for array in (answer, other))
    return np.asarray(((one - two) ** 2).mean(1) / max(float((one**2).mean()), 1e-30))
