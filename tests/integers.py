"""Integer products as x86 without VNNI computes them: loops over pairs in plain numpy, and small graphs of them."""

from itertools import product
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from tests import graphs

Array = NDArray[Any]
LARGE, SMALL = 2**15 - 1, -(2**15)
BYTES = {"x": (TensorProto.UINT8, None)}


def saturated(values: Array, weight: Array) -> Array:
    """Sums (T, N) of values (T, K) times weights (K, N), pair by pair in 16 bits."""
    sums = np.zeros((len(values), weight.shape[1]), np.int64)
    for row, column in product(range(len(values)), range(weight.shape[1])):
        terms = [int(a) * int(w) for a, w in zip(values[row], weight[:, column], strict=True)]
        terms += [0] * (len(terms) % 2)
        sums[row, column] = sum(
            min(max(first + second, SMALL), LARGE) for first, second in zip(terms[::2], terms[1::2], strict=True)
        )
    return sums


def product_of(values: Array, weight: Array, zero: int, saturates: bool) -> Array:
    """The same with the zero point of the values taken off, or the exact sums."""
    whole = saturated(values, weight) if saturates else values.astype(np.int64) @ weight.astype(np.int64)
    return whole - zero * weight.astype(np.int64).sum(0)


def windows(
    x: Array, size: int, zero: int, stride: int = 1, pad: int = 0, dilation: int = 1
) -> tuple[Array, tuple[int, int]]:
    """The values (B * positions, size * size * C) of a convolution's windows: place by place, channel by channel."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=zero)
    reach = dilation * (size - 1) + 1
    height, width = ((side - reach) // stride + 1 for side in padded.shape[2:])
    rows = [
        [
            padded[b, c, i * stride + dilation * di, j * stride + dilation * dj]
            for di, dj, c in product(range(size), range(size), range(x.shape[1]))
        ]
        for b, i, j in product(range(len(x)), range(height), range(width))
    ]
    return np.array(rows), (height, width)


def requantized(sums: Array, scale: Array, zero: int) -> Array:
    """Sums (T, N) as uint8, rounded to even."""
    values = np.rint(sums.astype(np.float32) * scale.astype(np.float32)) + zero
    return np.clip(values, 0, 255).astype(np.uint8)


def weights(generator: np.random.Generator, *shape: int) -> Array:
    """int8 as a quantizer leaves it; some pairs can saturate."""
    return np.clip(np.rint(generator.normal(0, 90, shape)), -127, 127).astype(np.int8)


def values(generator: np.random.Generator, *shape: int) -> Array:
    """uint8, most of them large."""
    return generator.integers(90, 256, shape).astype(np.uint8)


def model_of(operator: str, inputs: list[str], constants: dict[str, Any], kind: int, **attributes: Any) -> Any:
    """A graph of one node from "x", of bytes, to "y"."""
    domain = "" if operator in ("QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger") else "com.microsoft"
    node = graphs.node(operator, inputs, ["y"], name="it", domain=domain, **attributes)
    kinds = {"x": (TensorProto.FLOAT if operator == "DynamicQuantizeMatMul" else TensorProto.UINT8, None)}
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    given = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return graphs.graph([node], kinds, {"y": (kind, None)}, given, opset_imports=opsets, ir_version=8)


def convolution(generator: np.random.Generator, shape: tuple[int, ...], **attributes: Any) -> Any:
    """A QLinearConv with a weight of such a shape."""
    outputs = shape[0]
    constants = {
        "xs": np.float32(0.01), "xz": np.uint8(7), "w": weights(generator, *shape),
        "ws": generator.uniform(0.001, 0.002, outputs).astype(np.float32), "wz": np.zeros(outputs, np.int8),
        "ys": np.float32(0.05 * np.prod(shape[1:]) ** 0.5), "yz": np.uint8(120),
        "b": generator.integers(-9999, 9999, outputs).astype(np.int32),
    }  # fmt: skip
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    return model_of("QLinearConv", names, constants, TensorProto.UINT8, **attributes), constants


def run(proto: onnx.ModelProto, x: Array) -> list[Array]:
    """All outputs of a graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {proto.graph.input[0].name: x}))
