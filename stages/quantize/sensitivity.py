"""Sensitivity to quantization: how much the answers change when one layer at a time has fewer bits."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import ClassVar

from pydantic import Field, JsonValue

from pipeline.context import Context, Preview
from pipeline.model import Model, OnnxModel
from pipeline.stage import Stage
from stages.quantize.graphs.reach import reached
from stages.quantize.halves.numbers import Kind
from stages.quantize.mixed.effects import Activations
from stages.quantize.mixed.measuring import Sensitivity
from stages.quantize.quantizing.quantizer import check_settings
from stages.quantize.rounding.layout import LINEAR, WEIGHTS
from stages.quantize.rounding.settings import Width, schemes_of


class QuantizationSensitivity(Stage):
    """The model that came in, and for each of its layers how much the answers change where that alone is quantized.

    Put it behind `export.onnx` to see which layers want more bits, before `keep` or `layers` of a quantizing stage.
    `shrink sensitivity FILE` does that for any pipeline file. What lies in front of a layer is computed once, so all of
    it costs a few evaluations. The change is the KL divergence of logits at temperature 4, or of other answers the
    squared difference over their square.

    Example:
        - {use: quantize.sensitivity, widths: [8, 4]}

    Reference: Zhewei Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2020, arXiv:2011.10680, section 3.3,
    for the sum of layers' effects; here they are measured and not approximated.
    """

    only_measures: ClassVar[bool] = True

    widths: tuple[Width | Kind, ...] = Field(
        (8, 4, 2), min_length=1, description="of the weights: bits from 2 to 8, ternary, {codebook: 16}, fp16 or bf16"
    )
    activations: Activations = Field(
        "static",
        description="8 bits with the range of all batches, or of each batch; half is fp16, float rounds weights alone",
    )
    operators: tuple[str, ...] = Field(LINEAR, min_length=1, description="ONNX operators with weights")
    exclude: tuple[str, ...] = Field((), description="names of nodes to leave out")
    per_channel: bool = Field(True, description="a scale for each output channel instead of one for each weight")
    reduce_range: bool = Field(False, description="8 bits are 7, as against saturation on x86 CPUs without VNNI")
    examples: int = Field(128, ge=1, description="calibration examples at most")
    batch_size: int = Field(16, ge=1, description="calibration examples a batch")

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse operators without weights to round, and weights that are not fp32."""
        check_settings(before, preview.model, self.operators, [*WEIGHTS])
        return ()

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Refuse a graph without such weights."""
        for _ in reached(model, self.operators, self.exclude):
            pass
        return ()

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The model itself. Raises StageError when no node has such a weight or a node's name is unknown."""
        widths = schemes_of(self.widths)
        rows = Sensitivity(**{**self.model_dump(), "widths": widths}).of(model, ctx)
        layers: list[JsonValue] = [asdict(row) for row in rows]
        ctx.report("sensitivity", {"activations": self.activations, "widths": [*widths], "layers": layers})
        return model
