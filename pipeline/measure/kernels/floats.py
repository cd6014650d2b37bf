"""Why a product is computed in floats though the file is quantized, in words."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline.measure.kernels.facts import Facts, Node
from pipeline.measure.kernels.patterns.alarm import Alarm

WITH_KERNELS = {"Attention", "Conv", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "LSTM", "MatMul", "MatMulNBits"}
"""Operators of which there is one for integers, too."""


class Fallback(NamedTuple):
    """A node of floats, and why."""

    node: Node
    why: str


def fallbacks(facts: Facts, alarms: Sequence[Alarm]) -> Iterator[Fallback]:
    """The products of floats of a quantized file; none of a file that is of floats throughout."""
    if not facts.is_quantized:
        return
    reasons = {node.outputs: alarm.why for alarm in reversed(alarms) for node in alarm.nodes}
    for node in facts.floats():
        yield Fallback(node, reasons.get(node.outputs) or _why(node, facts))


def _why(node: Node, facts: Facts) -> str:
    run = facts.run
    if node.operator not in WITH_KERNELS:
        return f"ONNX Runtime has no kernel of integers for {node.operator}"
    if node.operator == "MatMulNBits":
        return "its weights alone are integers, and it may not compute in them: it has no accuracy_level"
    weights = [name for name in node.inputs[1:] if name and run.is_constant(name)]
    values = [name for name in node.inputs[:2] if name and not run.is_constant(name)]
    quantized = {name for name in (*weights, *values) if run.dequantized(run.past_moves(name)[0])}
    if not quantized:
        return "nothing quantizes it" if weights else "nothing quantizes the two values that it multiplies"
    if not quantized.issuperset(values):
        return "its weight is quantized and its input is not" if weights else "one of its inputs is not quantized"
    if weights and quantized.isdisjoint(weights):
        return "its input is quantized and its weight is not"
    return "ONNX Runtime does not make it and the conversions around it one kernel"
