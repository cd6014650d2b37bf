"""Bytes: of the file that would be deployed, and of the weights in it, layer by layer."""

from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx

from pipeline.forms.external_data import graphs_at, stored
from pipeline.forms.graph import read_by
from pipeline.forms.packed import decoders, inlined, is_packed
from pipeline.forms.text.tokenizer import canonical

if TYPE_CHECKING:  # a report reads files alone, and torch would cost it two seconds
    from pipeline.model import Deployed

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


def size_bytes(model: "Deployed") -> int:
    """Bytes on disk of the graph and its external data; of an encoder-decoder, of all files that it generates with."""
    return sum(path.stat().st_size for path in model.files())


def payload_bytes(model: "Deployed") -> int:
    """Bytes of the initializers alone: weights, quantization scales and zero points, shape constants.

    What several graphs share counts once, as it lies on disk.
    """
    return sum(_tensor_bytes(tensor) for _, tensor in stored(graphs_at(model.path)))


def tokenizer_bytes(model: "Deployed", tokenizer: Any) -> int | None:
    """Bytes of the tokenizer.json that is deployed beside the file: the task's tokenizer, or what is left of it."""
    text = model.vocabulary.pruned if model.vocabulary else canonical(tokenizer)
    return None if text is None else len(text.encode())


def layers(path: Path) -> list[LayerBytes]:
    """Where the payload of an ONNX file is: bytes by layer and type, as they are computed; their sum is all of it.

    A layer is named by its module, such as "blocks.0.conv1", with its scales and zero points. An initializer whose name
    does not tell, as in a file with compacted names, counts to the operator that reads it: "Conv 2", the second one.
    What decodes to the weights of several layers is "packed weights".
    Of a folder with several graphs each layer is named with its graph; what they share counts to the first of them.
    """
    paths = graphs_at(path)
    tensors = stored(paths)
    rows = {one: _layers(one, [tensor for at, tensor in tensors if at == one]) for one in paths}
    if len(paths) == 1:
        return rows[path]
    return [row._replace(name=f"{one.stem}: {row.name}") for one in paths for row in rows[one]]


def _layers(path: Path, tensors: list[onnx.TensorProto]) -> list[LayerBytes]:
    graph = inlined(path).graph
    readers = _readers(graph)
    packed = {name for node in decoders(graph) for name in node.input} if is_packed(graph) else set()
    byte_counts, order = Counter[tuple[str, str]](), dict[str, int]()
    for tensor in tensors:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        layer, position = _layer(tensor.name, readers)
        layer = "packed weights" if tensor.name in packed else layer
        order[layer] = min(position, order.get(layer, position))
        byte_counts[layer, dtype] += _tensor_bytes(tensor)
    rows = [LayerBytes(layer, dtype, count) for (layer, dtype), count in byte_counts.items()]
    return sorted(rows, key=lambda row: order[row.name])


def layer_of(graph: onnx.GraphProto) -> dict[str, str]:
    """For each initializer what `layers` calls its layer."""
    readers = _readers(graph)
    return {tensor.name: _layer(tensor.name, readers)[0] for tensor in graph.initializer}


def elements(tensor: onnx.TensorProto) -> int:
    """Number of elements of a tensor."""
    return prod(tensor.dims)


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    bits = BITS.get(tensor.data_type) or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return (elements(tensor) * bits + 7) // 8


def _readers(graph: onnx.GraphProto) -> dict[str, _Reader]:
    """For each value the first operator that reads it."""
    counts, first = Counter[str](), dict[str, _Reader]()
    for position, node in enumerate(graph.node):
        counts[node.op_type] += 1
        handed_on = node.output[0] if node.op_type in CARRIERS else ""
        for name in filter(None, read_by(node)):  # an input that is left out has no name
            first.setdefault(name, _Reader(f"{node.op_type} {counts[node.op_type]}", position, handed_on))
    return first


def _layer(name: str, readers: dict[str, _Reader]) -> tuple[str, int]:
    """What an initializer's layer is called, and where it stands in the graph."""
    module, dot, _ = name.rpartition(".")
    reader = _reader(name, readers)
    return module if dot else reader.label, reader.position


def _reader(name: str, readers: dict[str, _Reader]) -> _Reader:
    """The operator that works with a value, past those that only carry it; else the output that it becomes."""
    reader = _Reader(name, 0, name)
    while reader.handed_on in readers:
        reader = readers[reader.handed_on]
    return reader._replace(label=reader.handed_on) if reader.handed_on else reader
