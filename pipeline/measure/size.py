"""Bytes: of the file that would be deployed, and of the weights in it, layer by layer."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import onnx

if TYPE_CHECKING:  # a report reads files alone, and torch would cost it two seconds
    from pipeline.model import OnnxModel

BITS = {onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4, onnx.TensorProto.FLOAT4E2M1: 4}
CARRIERS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Transpose", "Identity"}


class LayerBytes(NamedTuple):
    """Bytes of one type of number in one layer."""

    name: str
    dtype: str
    bytes: int


class _Reader(NamedTuple):
    """An operator, its position in the graph, and what it hands on where it only carries a value."""

    label: str
    position: int
    handed_on: str


def size_bytes(model: "OnnxModel") -> int:
    """Bytes on disk of the graph and its external data."""
    return sum(path.stat().st_size for path in model.files())


def payload_bytes(model: "OnnxModel") -> int:
    """Bytes of the initializers alone: weights, quantization scales and zero points, shape constants."""
    graph = onnx.load(model.path, load_external_data=False).graph
    return sum(_tensor_bytes(tensor) for tensor in graph.initializer)


def layers(path: Path) -> list[LayerBytes]:
    """Where the payload of an ONNX file is: bytes by layer and type, as they are computed; their sum is all of it.

    A layer is named by its module, such as "blocks.0.conv1", with its scales and zero points. An initializer whose name
    does not tell, as in a file with compacted names, counts to the operator that reads it: "Conv 2", the second one.
    """
    graph = onnx.load(path, load_external_data=False).graph
    readers = _readers(graph)
    found, order = Counter[tuple[str, str]](), dict[str, int]()
    for tensor in graph.initializer:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        module, dot, _ = tensor.name.rpartition(".")
        reader = _reader(tensor.name, readers)
        layer = module if dot else reader.label
        order[layer] = min(reader.position, order.get(layer, reader.position))
        found[layer, dtype] += _tensor_bytes(tensor)
    rows = [LayerBytes(layer, dtype, count) for (layer, dtype), count in found.items()]
    return sorted(rows, key=lambda row: order[row.name])


def elements(tensor: onnx.TensorProto) -> int:
    """Number of elements of a tensor."""
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    bits = BITS.get(tensor.data_type)
    if bits is None:
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return (elements(tensor) * bits + 7) // 8


def _readers(graph: onnx.GraphProto) -> dict[str, _Reader]:
    """For each value the first operator that reads it."""
    seen, first = Counter[str](), dict[str, _Reader]()
    for position, node in enumerate(graph.node):
        seen[node.op_type] += 1
        handed_on = node.output[0] if node.op_type in CARRIERS else ""
        for name in _read_by(node):
            first.setdefault(name, _Reader(f"{node.op_type} {seen[node.op_type]}", position, handed_on))
    return first


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, in the graphs inside it too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                yield from _read_by(inner)


def _reader(name: str, readers: dict[str, _Reader]) -> _Reader:
    """The operator that works with a value, past those that only carry it; else the output that it becomes."""
    found = _Reader(name, 0, name)
    while found.handed_on in readers:
        found = readers[found.handed_on]
    return found._replace(label=found.handed_on) if found.handed_on else found
