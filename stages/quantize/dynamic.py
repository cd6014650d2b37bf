"""Dynamic quantization: 8-bit weights, and activations whose range is measured at each call."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from pydantic import Field

from pipeline.base.hardware import saturation
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError
from pipeline.model import Model, OnnxModel
from pipeline.stage import Stage
from stages.quantize.graphs.reach import reached
from stages.quantize.graphs.rewrite import chosen
from stages.quantize.mixed.effects import Activations
from stages.quantize.mixed.keeps import KeepsScore
from stages.quantize.quantizing.assigned import Assigned
from stages.quantize.quantizing.quantizer import REDUCE, Prepared, check_settings, quantize
from stages.quantize.quantizing.work import Work
from stages.quantize.rounding.data import calibration
from stages.quantize.rounding.layout import WEIGHTS
from stages.quantize.rounding.settings import RoundingSettings


class DynamicQuantization(RoundingSettings, KeepsScore, Stage):
    """An ONNX file with 8-bit weights, or fewer; activations are quantized at run time.

    Choose it for transformers, where weights are most of the work and activations vary much.
    It needs no calibration data, but for `rounding: adaptive`. On CPUs it makes convolutions several times slower: use
    `quantize.static` for these.

    Example:
        - {use: quantize.dynamic, operators: [MatMul]}

    Reference: Ofir Zafrir et al., "Q8BERT: Quantized 8Bit BERT", 2019, arXiv:1910.06188, which compares it with
    quantization-aware training.
    """

    quantizes: ClassVar[bool] = True

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
        self.check_rounding()
        if self.examples is not None and self.rounding == "nearest":
            fix = "Set rounding: adaptive, or leave examples out"
            raise ConfigError("`examples` is given, and rounding: nearest reads no calibration data", fix=fix)
        if self.rounding == "adaptive":
            yield from self.few_examples(preview)
        yield from self.check_keep(preview)
        if "Conv" in self.operators:
            yield "dynamically quantized convolutions are several times slower on CPUs; quantize.static is for them"
        if not self.reduce_range:
            yield from saturation(preview.isa, REDUCE)

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which nodes have weights to quantize; refuse a graph without any."""
        return reached(model, self.operators, self.exclude)

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The quantized file.

        Raises:
            StageError: no node was quantized, a node's name is unknown, or no mixture of widths keeps the score.
        """
        return self.kept(model, ctx)

    def packable(self) -> bool:
        """Where some layers may have fewer than 8 bits."""
        return not self.rounds_finely(*(self.keep.quantized(self.offer()) if self.keep else ()))

    def reads(self) -> Activations:
        """With the range of each call."""
        return "dynamic"

    def weighted(self) -> tuple[str, ...]:
        """Those of its operators whose weights take fewer bits."""
        return tuple(name for name in self.operators if name in WEIGHTS)

    def quantized(self, model: OnnxModel, ctx: Context, assigned: Assigned | None = None) -> OnnxModel:
        """The same, with what a search assigns."""
        left, halves = (assigned.left, assigned.halves) if assigned else ((), ())
        exclude = (*self.exclude, *left)
        if self.rounding == "nearest":
            return quantize(model, ctx, self.operators, exclude, partial(self._work, assigned), halves)
        with calibration(model, ctx, self.examples, self.batch_size) as data:

            def work(prepared: Prepared) -> Work:
                return replace(self._work(assigned, prepared), batches=data.batches(*prepared), count=data.count)

            return quantize(model, ctx, self.operators, exclude, work, halves, calibration_examples=data.examples)

    def _work(self, assigned: Assigned | None, prepared: Prepared) -> Work:
        exclude, without = prepared.named(self.exclude), prepared.named(assigned.left if assigned else ())
        asked = chosen(prepared.graph, self.operators, exclude)
        settings = self.model_dump(include={"per_channel", "reduce_range"})
        settings |= {"operators": [*self.operators], "exclude": [*exclude, *without]}
        settings["weights"] = self.plan(*prepared, asked, assigned, bias_correction=False)
        return Work("dynamic", settings)


def quantizable() -> list[str]:
    """ONNX operators that ONNX Runtime can quantize dynamically; it treats a Gemm as a MatMul and an Add."""
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    return sorted({*IntegerOpsRegistry, "Gemm"})
