"""Scales, biases and weights in floats: as halves where nothing is lost, and those of one axis as one tensor."""

from collections.abc import Mapping, Set

import numpy as np
import onnx
from numpy.typing import NDArray

from stages.quantize.packing.codes.writer import Writer
from stages.quantize.packing.weights import Stored, spread

Floats = NDArray[np.float32]
FEWEST = 8
"""Tensors of one axis that are stored as one; fewer do not pay for the node that cuts it."""
CAST_BYTES = 80
"""What it takes, about, to have halves made floats."""


def pack_floats(writer: Writer, tensors: Mapping[str, Floats], biases: Set[str]) -> dict[str, Stored]:
    """Add to the writer what decodes to tensors of floats, by their names; how those are stored that it pays for.

    Args:
        writer: gets the nodes.
        tensors: of the graph, of one axis or more.
        biases: names of those of which halves are as good, though not equal.
    """
    halves = {name: array for name, array in tensors.items() if name in biases or is_half(array)}
    halves = {} if 2 * sum(array.size for array in halves.values()) < CAST_BYTES else halves
    vectors = {name: array for name, array in tensors.items() if array.ndim == 1 and name not in halves}
    vectors = {} if len(vectors) < FEWEST else vectors
    for some, kind in ((halves, np.float16), (vectors, np.float32)):
        if some:
            _pack(writer, some, np.dtype(kind))
    stored = {name: Stored("fp16", 2 * array.size) for name, array in halves.items()}
    return stored | {name: Stored("fp32", 4 * array.size) for name, array in vectors.items()}


def is_half(array: Floats) -> bool:
    """Whether half precision holds each number exactly, to the bit."""
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32).tobytes() == array.tobytes()


def _pack(writer: Writer, tensors: Mapping[str, Floats], kind: np.dtype[np.floating]) -> None:
    ordered = dict(sorted(tensors.items(), key=lambda item: item[1].shape[1:]))
    whole = np.concatenate([array.reshape(-1) for array in ordered.values()]).astype(kind)
    name = writer.tensor(whole)
    value = writer.cast(name, onnx.TensorProto.FLOAT) if kind == np.float16 else name
    spread(writer, value, whole.size, {name: array.shape for name, array in ordered.items()})


def rounded_biases(graph: onnx.GraphProto) -> set[str]:
    """Names of biases that ONNX Runtime makes the same integers of whether they are floats or halves.

    It does so for a Conv or Gemm whose input and weight are dequantized: round(bias / (scale of the input * scale of
    the weight)), at least where nothing else reads the bias.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    reads = [name for node in graph.node for name in node.input]
    outside = {value.name for value in graph.output}
    names = set()
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or reads.count(node.input[2]) > 1:
            continue
        scales = [makers[name].input[1] for name in node.input[:2] if name in makers]
        bias = node.input[2]
        if len(scales) == 2 and {bias, *scales} <= {*tensors} - outside:
            number, *factors = (onnx.numpy_helper.to_array(tensors[name]) for name in (bias, *scales))
            if _same_integers(number, factors[0] * factors[1]):
                names.add(bias)
    return names


def _same_integers(bias: Floats, step: Floats) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        half = bias.astype(np.float16).astype(np.float32)
        return bool(np.array_equal(np.rint(bias / step), np.rint(half / step)))
