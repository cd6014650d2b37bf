"""Embeddings that are tied to an output layer: the table is read from the layer's 8-bit weights, and stored once.

ORTQuantizer would store both, the table with one scale for all of it. Here each token has its own, which is the scale
of its output channel.
"""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.forms.graph import refill

Array = NDArray[np.generic]
PREFIX = "tied."
"""Of the names that are added: ONNX Runtime calls the scale of an activation by its name and `_scale`, as these end."""
LAST_AXIS = f"{PREFIX}last_axis"


class Table(NamedTuple):
    """Rows of tokens (tokens, width) in 8 bits, with a scale (tokens,) and a zero point (tokens,) each."""

    rows: Array
    scale: Array
    zero: Array


@dataclass
class Tied:
    """What is known of the tables of several graphs, by a digest of the fp32 table; the first graph has the layer."""

    tables: dict[bytes, Table] = field(default_factory=dict)

    def nodes(self, before: onnx.GraphProto, exclude: Collection[str] = ()) -> list[str]:
        """Names of the Gathers that the quantizer should leave alone, where some nodes stay in fp32."""
        layers = {_digest(weight.T) for _, weight in _layers(before, exclude)}
        table_digests = [(node.name, _digest(table)) for node, table in _gathers(before) if node.name not in exclude]
        return [name for name, digest in table_digests if digest in layers or digest in self.tables]

    def share(self, before: onnx.GraphProto, after: onnx.GraphProto, names: Collection[str]) -> None:
        """Have Gathers of the quantized graph, which is changed, read 8-bit rows.

        Args:
            before: as the quantizer was given it.
            after: what it made, with the names that ONNX Runtime gives.
            names: of the Gathers.
        """
        tensors = {tensor.name: tensor for tensor in after.initializer}
        for name, weight in _layers(before):
            parts = [tensors.get(f"{name}_{part}") for part in ("quantized", "scale", "zero_point")]
            if all(parts):
                arrays = [numpy_helper.to_array(part) for part in parts]
                self.tables[_digest(weight.T)] = _table(*arrays)
        for node, table in list(_gathers(after)):
            if node.name in names and (quantized_table := self.tables.get(_digest(table))):
                _replace(after, node, quantized_table)


def _table(weights: Array, scale: Array, zero: Array) -> Table:
    tokens = weights.shape[1]
    return Table(weights.T.copy(), *(np.broadcast_to(part.reshape(-1), tokens).copy() for part in (scale, zero)))


def _layers(graph: onnx.GraphProto, exclude: Collection[str] = ()) -> Iterator[tuple[str, Array]]:
    """Names and values of the constant weights of matrix products, but for some nodes."""
    arrays, products = _matrices(graph), [n for n in graph.node if n.op_type == "MatMul" and n.name not in exclude]
    for name in {node.input[1]: None for node in products}:
        if name in arrays:
            yield name, numpy_helper.to_array(arrays[name])


def _gathers(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, Array]]:
    """The nodes that look up rows of a constant table, and the table."""
    arrays = _matrices(graph)
    for node in graph.node:
        by_row = not any(a.name == "axis" and a.i for a in node.attribute)
        if node.op_type == "Gather" and by_row and node.input[0] in arrays:
            yield node, numpy_helper.to_array(arrays[node.input[0]])


def _matrices(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    return {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.data_type == TensorProto.FLOAT}


def _digest(array: Array) -> bytes:
    return hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).digest()


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, table: Table) -> None:
    """(rows[ids] - zero[ids]) * scale[ids] in place of one lookup."""
    ids, name = node.input[1], node.output[0]
    old, new = f"{PREFIX}{node.input[0]}", f"{PREFIX}{name}"
    parts = {f"{old}_{part}": array for part, array in table._asdict().items()}
    there = {tensor.name for tensor in graph.initializer}
    last = np.array([-1], np.int64)
    for part, array in {**parts, LAST_AXIS: last}.items():
        if part not in there:
            graph.initializer.append(numpy_helper.from_array(array, part))
    rows, scale, zero = (f"{new}_{part}" for part in table._fields)
    nodes = [helper.make_node("Gather", [f"{old}_rows", ids], [rows], node.name)]
    nodes += _column(f"{old}_scale", ids, scale)
    nodes.append(helper.make_node("Cast", [rows], [f"{rows}_float"], f"{rows}_float", to=TensorProto.FLOAT))
    value = f"{rows}_float"
    if table.zero.any():
        nodes += _column(f"{old}_zero", ids, zero)
        nodes.append(helper.make_node("Cast", [zero], [f"{zero}_float"], f"{zero}_float", to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Sub", [value, f"{zero}_float"], [f"{value}_centred"], f"{value}_centred"))
        value = f"{value}_centred"
    nodes.append(helper.make_node("Mul", [value, scale], [name], f"{new}_scaled"))
    _swap(graph, node, nodes)


def _column(parts: str, ids: str, name: str) -> list[onnx.NodeProto]:
    """One number a token, with an axis for the row's width."""
    looked_up = helper.make_node("Gather", [parts, ids], [f"{name}_flat"], f"{name}_flat")
    return [looked_up, helper.make_node("Unsqueeze", [f"{name}_flat", LAST_AXIS], [name], f"{name}_column")]


def _swap(graph: onnx.GraphProto, node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
    """Put nodes in the place of one, and drop what nothing reads any more."""
    at = next(i for i, other in enumerate(graph.node) if other is node or other == node)
    refill(graph.node, [*graph.node[:at], *nodes, *graph.node[at + 1 :]])
    read = {name for other in graph.node for name in other.input}
    refill(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in read])
