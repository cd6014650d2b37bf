"""Dynamic quantization: 8-bit weights, and activations whose range is measured at each call."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from pydantic import Field

from pipeline.model import OnnxModel
from pipeline.stage import Context, Outlook, Stage
from stages.quantize.compact import graphs_in
from stages.quantize.onnx_tools import SATURATION, check_before, check_operators, quantize, saturates, split_gemm


class DynamicQuantization(Stage):
    """An ONNX file with 8-bit weights; activations are quantized at run time, so no calibration data is needed.

    Choose it for transformers, where weights are most of the work and activations vary much.
    On CPUs it makes convolutions several times slower: use `quantize.static` for these.

    Example:
        - {use: quantize.dynamic, operators: [MatMul]}

    Reference: Ofir Zafrir et al., "Q8BERT: Quantized 8Bit BERT", 2019, arXiv:1910.06188, which compares it with
    quantization-aware training.
    """

    operators: tuple[str, ...] = Field(
        ("MatMul", "Gemm"), min_length=1, description="ONNX operators to quantize, of those with constant weights"
    )
    exclude: tuple[str, ...] = Field((), description="names of nodes to leave in fp32")
    per_channel: bool = Field(True, description="a scale for each output channel instead of one for each weight")
    reduce_range: bool = Field(
        False, description="7-bit weights, against saturation on x86 CPUs without VNNI (before about 2019)"
    )

    def check(self, before: Sequence[Stage], outlook: Outlook) -> Iterable[str]:
        """Refuse unknown operators; warn of convolutions."""
        check_before(before)
        check_operators(self.operators, quantizable())
        if "Conv" in self.operators:
            yield "dynamically quantized convolutions are several times slower on CPUs; quantize.static is for them"

        if not self.reduce_range and saturates():
            yield SATURATION

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The quantized file. Raises StageError when no node was quantized or a node's name is unknown."""
        return quantize(model, ctx, self.operators, self.exclude, self._quantize)

    def _quantize(self, graph: onnx.GraphProto, source: Path, target: Path, external: bool) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # Named one by one: ONNX Runtime makes MatMuls of Gemms first, so neither `Gemm` nor an excluded Gemm's name
        # would be heard.
        nodes = [split_gemm(n) for n in graph.node if n.op_type in self.operators and n.name not in self.exclude]
        quantize_dynamic(
            transpose_gemms(onnx.load(source)),
            target,
            op_types_to_quantize=sorted({"MatMul" if name == "Gemm" else name for name in self.operators}),
            nodes_to_quantize=nodes or [""],  # an empty list would mean all
            per_channel=self.per_channel,
            reduce_range=self.reduce_range,
            weight_type=QuantType.QInt8,
            use_external_data_format=external,
        )


def transpose_gemms(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph, changed in place, with constant weights of `Gemm(transB=1)` stored transposed, shared ones once.

    ONNX Runtime would transpose a weight in place for each Gemm that reads it: one that two of them share comes out
    wrong, without an error.
    """
    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made: dict[str, str] = {}
    for node in graph.node:
        flags = [a for a in node.attribute if a.name == "transB" and a.i]
        if node.op_type != "Gemm" or not flags or node.input[1] not in weights:
            continue
        name = node.input[1]
        if name not in made:
            made[name] = f"{name}_transposed"
            matrix = onnx.numpy_helper.to_array(weights[name]).T.copy()
            graph.initializer.append(onnx.numpy_helper.from_array(matrix, made[name]))
        node.input[1] = made[name]
        node.attribute.remove(flags[0])
    read = {name for part in graphs_in(graph) for node in part.node for name in node.input}
    read |= {value.name for value in graph.output}
    for name in made:
        if name not in read:
            graph.initializer.remove(weights[name])
    return proto


def quantizable() -> list[str]:
    """ONNX operators that ONNX Runtime can quantize dynamically; it treats a Gemm as a MatMul and an Add."""
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    return sorted({*IntegerOpsRegistry, "Gemm"})
