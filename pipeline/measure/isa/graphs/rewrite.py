"""A graph that answers on every CPU what its integers answer on one.

Each product that saturates on x86 without VNNI is computed exactly, by kernels that do not saturate anywhere, and what
its pairs lose is added. What comes before and behind the sums is computed as ONNX Runtime's kernels do it.
"""

from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from pipeline.forms.graph import graphs_of, opset, refill
from pipeline.measure.isa.errors import UnknownError
from pipeline.measure.isa.graphs.products import WEIGHTS, Constants, Product, products
from pipeline.measure.isa.graphs.stand_in import StandIn
from pipeline.measure.isa.graphs.writer import PREFIX, Writer

OLDEST = 11
"""The first set of operators in which paddings and slices are inputs."""
COUNTS = ("saturated", "pairs", "taken", "whole")
"""What is counted of a product: pairs that saturated, all pairs, the square of what they took off, that of the sums."""


def output_of(index: int, count: str) -> str:
    """The output that has one of `COUNTS` of a layer."""
    return f"{PREFIX}.{index}.{count}"


class Rewriting:
    """Rewrites a graph in place.

    Args:
        proto: a graph as ONNX Runtime runs it, with all weights inside.
        saturates: whether pairs saturate on the CPU; else all sums are exact.
        exact: names of products that are exact nevertheless.
        counted: whether the graph gets outputs for `COUNTS`, of the products that are not in graphs inside its nodes.

    Raises:
        UnknownError: it is not known what one of its nodes answers elsewhere, or its operators are too old.
    """

    def __init__(
        self, proto: onnx.ModelProto, *, saturates: bool, exact: Collection[str] = (), counted: bool = False
    ) -> None:
        self.proto, self.saturates, self.exact, self.counted = proto, saturates, exact, counted
        self.writer = Writer(proto.graph, opset(proto))
        self.products: list[Product] = []
        self.places: list[int] = []
        """Where each stands among all products of the graph, from 1."""
        self.seen = 0
        for graph, constants in reversed([*_scopes(proto.graph, ChainMap())]):  # those inside others first
            self._graph(graph, constants)
        if self.products and opset(proto) < OLDEST:
            problem = f"its operators are of opset {opset(proto)}"
            raise UnknownError(problem, expected=f"{OLDEST} or newer", fix="Export it again, with a newer opset")

    def _graph(self, graph: onnx.GraphProto, constants: Constants) -> None:
        self.writer.nodes, kinds = [], _kinds(graph)
        for node in graph.node:
            self.seen += node.op_type in WEIGHTS
            some = list(products(node, constants, kinds))
            if not some:
                self.writer.nodes.append(node)
            for product in some:
                self._product(product, constants, is_main=graph is self.proto.graph)
        refill(graph.node, self.writer.nodes)

    def _product(self, product: Product, constants: Constants, *, is_main: bool) -> None:
        """Write a product and what belongs to it in place of its node."""
        writer, values = self.writer, StandIn(product, constants, self.writer)
        exact, taken, counts = values.exact(), "", list[str]()
        if self.saturates and product.name not in self.exact:
            taken, counts = values.correction(exact)
        if self.counted and is_main and taken:
            self._count(len(self.products), product, exact, taken, counts)
        sums = writer.add("Add", exact, taken) if taken else exact
        values.finish(sums)
        self.products.append(product)
        self.places.append(self.seen)

    def _count(self, index: int, product: Product, exact: str, taken: str, counts: list[str]) -> None:
        writer = self.writer
        each = [writer.total(count) for count in counts]
        saturated = each[0] if len(each) == 1 else writer.add("Sum", *each)
        outputs = writer.cast(writer.add("Size", exact), TensorProto.DOUBLE)
        pairs = writer.add("Mul", outputs, writer.constant(np.array([product.pairs_a_sum], np.float64)))
        doubles = [writer.cast(value, TensorProto.DOUBLE) for value in (taken, exact)]
        squares = [writer.total(writer.add("Mul", value, value)) for value in doubles]
        for count, value in zip(COUNTS, (saturated, pairs, *squares), strict=True):
            name = writer.add("Identity", value, output=output_of(index, count))
            self.proto.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.DOUBLE, [1]))


def _scopes(graph: onnx.GraphProto, outer: ChainMap[str, NDArray[Any]]) -> Iterator[tuple[onnx.GraphProto, Constants]]:
    """A graph and those inside its nodes, each with the constants that it sees: its own, then those around it.

    Two branches may use one name for constants of their own.
    """
    seen = outer.new_child({tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer})
    yield graph, seen
    for node in graph.node:
        for inner in graphs_of(node):
            yield from _scopes(inner, seen)


def _kinds(graph: onnx.GraphProto) -> Mapping[str, int]:
    """The types of values, as far as the graph says them."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}
