"""Dynamic quantization: 8-bit weights, and activations whose range is measured at each call."""

from collections.abc import Iterable, Sequence

from pydantic import Field

from pipeline.base.hardware import cpu_flags, saturates
from pipeline.model import OnnxModel
from pipeline.stage import Context, Preview, Stage
from stages.quantize.quantizer import SATURATION, Prepared, check_settings, quantize
from stages.quantize.work import Work


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
        ("MatMul", "Gemm", "Gather"),
        min_length=1,
        description="ONNX operators to quantize, of those with constant weights; Gather is an embedding's",
    )
    exclude: tuple[str, ...] = Field((), description="names of nodes to leave in fp32")
    per_channel: bool = Field(True, description="a scale for each output channel instead of one for each weight")
    reduce_range: bool = Field(
        False, description="7-bit weights, against saturation on x86 CPUs without VNNI (before about 2019)"
    )

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse unknown operators; warn of convolutions."""
        check_settings(before, preview.model, self.operators, quantizable())
        if "Conv" in self.operators:
            yield "dynamically quantized convolutions are several times slower on CPUs; quantize.static is for them"
        if not self.reduce_range and saturates(cpu_flags()):
            yield SATURATION

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The quantized file. Raises StageError when no node was quantized or a node's name is unknown."""
        return quantize(model, ctx, self.operators, self.exclude, self._work)

    def _work(self, prepared: Prepared) -> Work:
        settings = self.model_dump(include={"per_channel", "reduce_range"})
        settings["operators"] = [*self.operators]
        settings["exclude"] = [name for name, old in prepared.names.nodes.items() if old in self.exclude]
        return Work("dynamic", settings)


def quantizable() -> list[str]:
    """ONNX operators that ONNX Runtime can quantize dynamically; it treats a Gemm as a MatMul and an Add."""
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    return sorted({*IntegerOpsRegistry, "Gemm"})
