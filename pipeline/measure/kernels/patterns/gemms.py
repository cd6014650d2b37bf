"""Gemms between conversions that ONNX Runtime leaves as they are; see findings/qdq_gemm_zero_point.sh."""

from collections.abc import Iterator

from pipeline.measure.kernels.facts import Cpu, Facts, Node
from pipeline.measure.kernels.patterns.alarm import Alarm
from pipeline.measure.kernels.patterns.products import quantized

GEMMS = ("FusedGemm", "Gemm")
ENDS = 3
"""Inputs of a DequantizeLinear with a zero point, and of a Gemm with a bias."""


def without_zero_point(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Gemms whose weight has no zero point."""
    nodes = [node for node in quantized(facts, GEMMS) if not _has_zero_point(node, facts)]
    if nodes:
        why = "its weight has a scale and no zero point, without which a Gemm is not made one with its conversions"
        yield Alarm("Gemm without a zero point", nodes, why, "Give the weight's DequantizeLinear zero points of 0")


def with_bias(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Gemms with a bias of floats, of which the result is not quantized."""
    nodes = [
        node
        for node in quantized(facts, GEMMS)
        if _has_zero_point(node, facts)
        and len(node.inputs) >= ENDS
        and not any(reader.operator == "QuantizeLinear" for reader in facts.run.readers(node))
    ]
    if nodes:
        why = "it has a bias of floats and its output is not quantized: the integer kernel of a Gemm does not take both"
        yield Alarm("unquantized output", nodes, why, "Quantize its output, or quantize the bias to int32")


def _has_zero_point(node: Node, facts: Facts) -> bool:
    maker = facts.run.dequantized(node.inputs[1])
    return maker is None or len(maker.inputs) >= ENDS
