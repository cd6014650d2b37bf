"""From the file of an int8 graph to one that answers on every CPU as it does on another: in this process."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import onnx

from pipeline.forms.deployed.optimized import write_optimized
from pipeline.forms.graph import EXTERNAL_DATA_BYTES, QUANTIZED, graphs_in
from pipeline.forms.packed import inlined
from pipeline.measure.isa.errors import NoIntegersError
from pipeline.measure.isa.graphs.products import Product
from pipeline.measure.isa.graphs.rewrite import Rewriting

BESIDES = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", "DynamicQuantizeLSTM", "QAttention", "MatMulNBits"}
"""Operators of ONNX Runtime's own that have integers, beside those of the standard."""


class Layer(NamedTuple):
    """A product that saturates on x86 without VNNI.

    Args:
        node: its name as ONNX Runtime runs it.
        operator: such as QLinearConv.
        place: among all products of the graph, from 1.
        shape: of its weight.
        at_risk: share of its pairs of weights that can saturate.
    """

    node: str
    operator: str
    place: int
    shape: list[int]
    at_risk: float


def write_emulated(source: Path, target: Path, *, as_it_is: bool = False, **how: Any) -> list[Layer]:
    """Write the graph that answers so; gives its layers at risk.

    Args:
        source: a file with integers.
        target: the file to write.
        as_it_is: only see whether it has integers; it answers so itself, and nothing is written.
        how: arguments of `Rewriting`.

    Raises:
        NoIntegersError: it has none.
        UnknownError: it is not known what it answers elsewhere.
        StageError: the graph is larger than a file can be.
    """
    operators = {node.op_type for graph in graphs_in(inlined(source).graph) for node in graph.node}
    if not operators & (QUANTIZED | BESIDES):
        problem = f"{source.name} has no integers, so it answers the same on every CPU"
        raise NoIntegersError(problem, expected="a file that a stage of quantize made")
    if as_it_is:
        return []
    with TemporaryDirectory(dir=target.parent) as name:
        optimized = Path(name) / "optimized.onnx"
        write_optimized(source, optimized)
        proto = onnx.load(optimized)
    rewriting = Rewriting(proto, **how)
    # Not by `save`, whose checker refuses inputs of any rank, which a file from outside may have.
    external = proto.ByteSize() > EXTERNAL_DATA_BYTES
    onnx.save(proto, target, save_as_external_data=external, location=f"{target.name}.data")
    return [_layer(*pair) for pair in zip(rewriting.products, rewriting.places, strict=True)]


def _layer(product: Product, place: int) -> Layer:
    at_risk = product.pairs.size / (product.pairs_a_sum * product.outputs)
    return Layer(product.name, product.node.op_type, place, list(product.weight.shape), at_risk)
