"""What became of a graph that was quantized: nodes in 8 bits and in fp32, and why, as the record and the log say it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from pydantic import JsonValue

from pipeline.base.formatting import bytes_text, few
from pipeline.context import Context
from pipeline.forms.graph import QUANTIZED, graphs_in
from pipeline.measure.operators.quantized import scales_and_zero_points
from stages.quantize.graphs.masks import FLOATS
from stages.quantize.graphs.reasons import RANGE, REASONS, WEIGHT
from stages.quantize.graphs.rewrite import split_gemm
from stages.quantize.rounding.rounder import Entry

EIGHT_BITS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


@dataclass(frozen=True)
class Quantized:
    """What became of a graph.

    Args:
        proto: the small graph.
        nodes: how many nodes of each operator were quantized.
        fp32: how many of each were not.
        left: names of the nodes that were left by themselves, or quantized otherwise than asked, by the reason.
        weights: bytes of each weight that stays in fp32, the largest first.
        layers: the integers of each layer's weight, and the squared error of it and of its outputs, over their squares.
    """

    proto: onnx.ModelProto
    nodes: dict[str, int]
    fp32: dict[str, int]
    left: dict[str, list[str]]
    weights: dict[str, int]
    layers: list[Entry]

    @property
    def counts(self) -> dict[str, JsonValue]:
        """What the record says of it."""
        left: dict[str, JsonValue] = {why: [*names] for why, names in self.left.items()}
        return {
            "quantized": {**self.nodes}, "fp32": {**self.fp32}, "fp32_bytes": sum(self.weights.values()), **left,
            **({"layers": [*self.layers]} if self.layers else {}),
        }  # fmt: skip


def tally(
    before: Sequence[onnx.NodeProto], after: onnx.GraphProto, selected: set[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Nodes of the graph before, by operator: those that are quantized after, and those left in fp32.

    A node that went into a quantized neighbour, such as a Relu into its convolution, counts as quantized. One that was
    not asked for and reads the dequantized output of a neighbour does not.
    """
    integers = {out for node in after.node if node.op_type == "DequantizeLinear" for out in node.output}
    integers |= {t.name for t in after.initializer if t.data_type in EIGHT_BITS}  # a table that a Gather reads
    fused = {node.name for node in after.node if integers & set(node.input)} & selected
    same = {node.name for node in after.node if node.op_type not in QUANTIZED} - fused
    # The dynamic quantizer first splits every Gemm, also one that it then leaves alone.
    unquantized = Counter(n.op_type for n in before if n.name in same or split_gemm(n) in same)
    every = Counter(n.op_type for n in before)
    return dict(sorted((every - unquantized).items())), dict(sorted(unquantized.items()))


def fp32_weights(graph: onnx.GraphProto) -> dict[str, int]:
    """Bytes of the weights that are no integers, by name, the largest first."""
    aside = scales_and_zero_points(graph)
    floats = [t for part in graphs_in(graph) for t in part.initializer if t.data_type in FLOATS and t.name not in aside]
    sizes = {t.name: onnx.numpy_helper.to_array(t).nbytes for t in floats}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def tell(quantized: Quantized, ctx: Context) -> None:
    """Say in the log what was quantized and what was not; values that the data alone show are worth a warning."""
    ctx.log.info("quantized %d nodes, left %d in fp32", sum(quantized.nodes.values()), sum(quantized.fp32.values()))
    if quantized.weights:
        parts = [f"{name} {bytes_text(size)}" for name, size in quantized.weights.items()]
        total = bytes_text(sum(quantized.weights.values()))
        ctx.log.info("weights that stay in fp32: %s (%s)", total, few(parts))
    for why, names in quantized.left.items():
        text = f"{REASONS[why]}: {few(names)}"
        if why in (RANGE, WEIGHT):
            ctx.warn(text)
        else:
            ctx.log.info(text)
