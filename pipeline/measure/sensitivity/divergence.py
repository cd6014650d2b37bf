"""How far two networks' answers to the same examples are apart, as one number."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.targets.labelling import Labelling
from pipeline.errors import StageError
from pipeline.measure.agreement import kl_divergence

Array = NDArray[Any]
TEMPERATURE = 4.0
"""Of logits: at 1 the few examples of which a network is unsure decide the mean, and it takes thousands of them."""


def divergence(pairs: Iterable[tuple[Array, Array]], labelling: Labelling | None) -> float:
    """The mean over examples of T^2 KL(softmax(z / T) || softmax(z' / T)) in nats, of logits z at temperature T = 4.

    Of other answers it is the sum of squared differences over the sum of squares.

    Args:
        pairs: of each batch what is answered, the reference, and the other answers, both (B, ...).
        labelling: the task's where answers are logits, else None.

    Raises:
        StageError: it is no number, as where answers are infinite.

    Reference: Geoffrey Hinton, Oriol Vinyals and Jeff Dean, "Distilling the Knowledge in a Neural Network", 2015,
    arXiv:1503.02531, section 2: so scaled, it tends to the squared difference of the logits as T grows.
    """
    change, whole = 0.0, 0.0
    for answer, other in pairs:
        if labelling:
            first, second = (torch.from_numpy(np.asarray(array, np.float32)) / TEMPERATURE for array in (answer, other))
            change += float(kl_divergence(first, second, labelling).sum()) * TEMPERATURE**2
            whole += len(answer)
        else:
            one, two = (np.asarray(array, np.float64) for array in (answer, other))
            change += float(((one - two) ** 2).sum())
            whole += float((one**2).sum())
    if not np.isfinite(change + whole):
        fix = "Measure an output that is finite: name it as `output` of the task"
        raise StageError("answers are infinite or no numbers, so that they have no divergence", fix=fix)
    return change / max(whole, 1e-30)
