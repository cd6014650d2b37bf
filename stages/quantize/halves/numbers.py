"""What 16 bits keep of a weight."""

from typing import Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

Kind = Literal["fp16", "bf16"]
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
LARGEST = {"fp16": 65504.0, "bf16": 3.3895e38}
Floats = NDArray[np.floating]


class Loss(NamedTuple):
    """What a weight loses.

    Args:
        overflowing: how many of its numbers become infinite.
        vanishing: how many that are not zero become zero.
        error: the squared error, as a share of the squares.
    """

    overflowing: int
    vanishing: int
    error: float


def halved(array: Floats, kind: Kind) -> NDArray[np.generic]:
    """The nearest numbers of 16 bits."""
    with np.errstate(over="ignore"):
        return array.astype(onnx.helper.tensor_dtype_to_np_dtype(TYPES[kind]))


def nearest(array: Floats, kind: Kind) -> Floats:
    """The nearest numbers of 16 bits that are finite, in fp32."""
    return halved(array.clip(-LARGEST[kind], LARGEST[kind]), kind).astype(np.float32)


def loss(array: Floats, kind: Kind) -> Loss:
    """What is lost; of the error what overflows counts nothing."""
    back = halved(array, kind).astype(np.float32)
    is_over = np.isfinite(array) & ~np.isfinite(back)
    is_kept = np.isfinite(back)
    kept, numbers = (np.where(is_kept, one, 0).astype(np.float64) for one in (back, array))
    squares = float((numbers**2).sum())
    error = float(((kept - numbers) ** 2).sum()) / squares if squares > 0 else 0.0
    return Loss(int(is_over.sum()), int(((back == 0) & (array != 0)).sum()), error)
