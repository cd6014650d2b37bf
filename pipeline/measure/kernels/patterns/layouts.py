"""Axes that are not what a kernel takes them for, and layouts that are changed to and fro."""

from collections.abc import Iterator

from pipeline.measure.kernels.facts import BLOCKED, CONVOLUTION_AXES, Cpu, Facts, Node, share_of_macs, share_of_time
from pipeline.measure.kernels.patterns.alarm import Alarm
from pipeline.measure.kernels.patterns.conversions import MUCH

LAYOUTS = ("Transpose", "ReorderInput", "ReorderOutput")
ROUND = "Prune to multiples of 16 channels, or of 8: prune.channels, `round_to`"
BLOCK = 4
"""ONNX Runtime takes channels in blocks where their number is a multiple of this."""


def wrong_axis(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Weights with a scale for each entry of an axis that is not the output's."""
    file, nodes = facts.file, list[Node]()
    for node in file.nodes:
        axis = _output_axis(node, facts)
        maker = file.dequantized(node.inputs[1]) if axis is not None else None
        if maker is None or not file.is_constant(maker.inputs[0]):
            continue
        rank = len(file.shapes.get(maker.inputs[0], ()))
        is_per_axis = file.shapes.get(maker.inputs[1], [1]) not in ([], [1]) and not maker.attributes.get("block_size")
        if is_per_axis and rank and axis is not None and maker.attributes.get("axis", 1) % rank != axis % rank:
            nodes.append(node)
    if nodes:
        why = (
            "its weight has a scale for each entry of another axis than that of its outputs: ONNX Runtime refuses it, "
            "computes it in floats, or takes the scales for those of the outputs and answers something else"
        )
        remedy = "Set the axis of its DequantizeLinear to that of the outputs, or use one scale for the whole weight"
        yield Alarm("scales along a wrong axis", nodes, why, remedy)


def to_and_fro(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Convolutions between transposes that take a good part of the time."""
    convolutions = [node for node in facts.products() if "Conv" in node.operator]
    moves = [n for n in facts.run.nodes if n.operator in LAYOUTS and not facts.run.is_constant(n.inputs[0])]
    if len(convolutions) > 1 and len(moves) >= 2 * len(convolutions) - 1 and share_of_time(moves, facts) > 0.3:
        why = (
            f"{len(moves)} changes of the layout stand between {len(convolutions)} convolutions and take "
            f"{share_of_time(moves, facts):.0%} of the time"
        )
        remedy = "Export with channels first throughout (N, C, H, W), and keep norms and pooling in that layout"
        yield Alarm("layout to and fro", moves, why, remedy)


def odd_widths(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Convolutions of floats whose number of channels keeps them from the kernels for blocks of channels."""
    nodes = [n for n in facts.floats() if cpu.is_x86 and n.operator in ("Conv", "FusedConv") and n.domain != BLOCKED]
    nodes = [node for node in nodes if _is_odd(node, facts)]
    if share_of_macs(nodes, facts) > MUCH:
        why = f"the number of its input channels is no multiple of {BLOCK}, as the kernels for blocks of channels need"
        yield Alarm("odd widths", nodes, why, ROUND)


def filled_blocks(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Convolutions between which channels are taken out of their blocks and put in again; where it is slower, too."""
    nodes = []
    for node in facts.run.nodes:
        if facts.slower and node.operator == "ReorderOutput":
            maker, readers = facts.run.makers.get(node.inputs[0]), facts.run.readers(node)
            between = any("Conv" in reader.operator or reader.operator == "ReorderInput" for reader in readers)
            nodes += [maker] if maker and maker.is_product and between else []
    if nodes:
        why = (
            "its channels do not fill the blocks that this CPU takes them in (16 with AVX-512, else 8): empty ones are "
            "computed along, and each result is taken out of its blocks"
        )
        yield Alarm("odd widths", nodes, why, ROUND)


def unfolded_norm(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """A batch normalization behind a convolution that was quantized before the two were made one."""
    nodes = []
    for node in facts.run.nodes:
        if node.operator == "BatchNormalization" and (before := facts.run.dequantized(node.inputs[0])):
            maker = facts.run.makers.get(facts.run.past_moves(before.inputs[0])[0])
            source = facts.file.makers.get(node.inputs[0])
            if (maker and maker.operator == "QLinearConv") or (source and source.operator == "Conv"):
                nodes.append(node)
    if nodes:
        why = "the convolution before it was quantized first, so that it is no longer folded into its weights"
        remedy = "Fold norms before quantizing, as quantize.static does: start from the file in floats"
        yield Alarm("unfolded batch normalization", nodes, why, remedy)


def _output_axis(node: Node, facts: Facts) -> int | None:
    """The axis of a weight on which the outputs lie; None for what has no such weight."""
    if len(node.inputs) < 2:
        return None
    transposed = bool(node.attributes.get("transB", 0))
    axes = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": 0 if transposed else 1}
    return axes.get(node.operator)


def _is_odd(node: Node, facts: Facts) -> bool:
    weight = facts.run.shapes.get(node.inputs[1], [])
    is_flat = len(weight) > CONVOLUTION_AXES and int(node.attributes.get("group", 1)) == 1
    return is_flat and weight[1] > BLOCK and weight[1] % BLOCK != 0 and not facts.run.dequantized(node.inputs[0])
