"""Static quantization: 8-bit weights and activations, with ranges measured on calibration data."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.base.hardware import saturation
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError
from pipeline.model import Model, OnnxModel
from pipeline.stage import Stage
from stages.quantize.balance.balance import Balance
from stages.quantize.graphs.reach import reached
from stages.quantize.graphs.rewrite import chosen
from stages.quantize.mixed.effects import Activations
from stages.quantize.mixed.keeps import KeepsScore
from stages.quantize.quantizing.assigned import Assigned, Trial
from stages.quantize.quantizing.quantizer import REDUCE, Prepared, check_settings, quantize
from stages.quantize.quantizing.work import Work
from stages.quantize.rounding.data import calibration
from stages.quantize.rounding.layout import LINEAR
from stages.quantize.rounding.settings import RoundingSettings


class StaticQuantization(RoundingSettings, KeepsScore, Stage):
    """An ONNX file with 8-bit weights and activations, the ranges of the activations fixed by calibration.

    Choose it for convolutional networks, and for whatever has typical inputs at hand: it is the fastest form on CPUs.
    `quantize.dynamic` needs no data. Weights w become round(w / s) with s = max|w| / 127 per output channel.

    Example:
        - {use: quantize.static, calibration: percentile, percentile: 99.9}

    Reference: Benoit Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018, arXiv:1712.05877, eq. 1; per channel: Raghuraman Krishnamoorthi,
    "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018, arXiv:1806.08342.
    """

    quantizes: ClassVar[bool] = True

    activations: Literal["uint8", "int8"] = Field(
        "uint8", description="type of the activations; uint8 is the fast one on x86, int8 suits Arm and TensorRT"
    )
    calibration: Literal["minmax", "entropy", "percentile", "mse"] = Field(
        "minmax",
        description="how ranges are chosen: all values, least KL divergence, without the rarest values, or least "
        "squared error",
    )
    percentile: float = Field(
        99.99, gt=50, le=100, description="share of values inside the range, in per cent, for calibration: percentile"
    )
    bias_correction: bool = Field(
        False, description="take what rounding shifts the mean of each output channel by off its bias"
    )
    smooth: float | None = Field(
        None,
        ge=0,
        le=1,
        description="SmoothQuant: how much of outliers moves from inputs of products into weights; 0.5",
    )
    equalize: bool = Field(False, description="give channels between two layers the same largest weight in both")
    per_channel: bool = Field(True, description="a scale for each output channel instead of one for each weight")
    reduce_range: bool = Field(
        False, description="7-bit weights, against saturation on x86 CPUs without VNNI (before about 2019)"
    )
    operators: tuple[str, ...] | None = Field(
        None, min_length=1, description="ONNX operators to quantize; null takes all that can be"
    )
    exclude: tuple[str, ...] = Field((), description="names of nodes to leave in fp32")

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse unknown operators and a percentile without its method; warn of few calibration examples."""
        # Where none is named ONNX Runtime's list, which takes its time, is not asked for.
        check_settings(before, preview.model, self.operators or (), quantizable() if self.operators else ())
        self.check_rounding()
        default = type(self).model_fields["percentile"].default
        if self.percentile != default and self.calibration != "percentile":
            fix = "Set calibration: percentile, or leave percentile out"
            raise ConfigError(f"`percentile` is {self.percentile:g} and `calibration` is {self.calibration}", fix=fix)
        yield from self.few_examples(preview)
        yield from self.check_keep(preview)
        if not self.reduce_range:  # ONNX Runtime makes int8 activations uint8 on x86
            yield from saturation(preview.isa, REDUCE)

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which nodes have weights to quantize; refuse a graph without any."""
        return reached(model, self.operators or quantizable(), self.exclude)

    @contextmanager
    def trials(self, model: OnnxModel, ctx: Context) -> Iterator[Trial]:
        """What quantizes a model with other settings, or without some nodes; ranges are measured once for all."""
        ctx.directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=ctx.directory, prefix="ranges-") as folder:
            ranges = Path(folder).absolute() / "ranges.json"

            def trial(inner: Context, assigned: Assigned) -> OnnxModel:
                return self.quantized(model, inner, assigned, ranges)

            yield trial

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
        """With the ranges of the calibration data."""
        return "static"

    def weighted(self) -> tuple[str, ...]:
        """Convolutions and matrix products, of its operators."""
        return tuple(name for name in LINEAR if name in (self.operators or LINEAR))

    def quantized(
        self, model: OnnxModel, ctx: Context, assigned: Assigned | None = None, ranges: Path | None = None
    ) -> OnnxModel:
        """The same, with what a search assigns, and a file in which ranges are kept from one call to the next."""
        left, halves = (assigned.left, assigned.halves) if assigned else ((), ())
        operators = self.operators or quantizable()
        balance = Balance(self.smooth, self.equalize)
        with calibration(model, ctx, self.examples, self.batch_size, balance.passes) as data:

            def work(prepared: Prepared) -> Work:
                own = {"calibration", "percentile", "activations", "per_channel", "reduce_range"}
                nodes, without = prepared.named(self.exclude), prepared.named(left)
                lists: dict[str, Any] = {"ranges": str(ranges) if ranges else None}
                lists |= {"op_types_to_quantize": sorted(operators), "nodes_to_exclude": [*nodes, *without]}
                asked = chosen(prepared.graph, {*operators} & {*LINEAR}, nodes)
                weights = self.plan(*prepared, asked, assigned, bias_correction=self.bias_correction)
                settings = self.model_dump(include=own) | lists | {"weights": weights}
                settings["balance"] = balance._asdict()
                return Work("static", settings, data.batches(*prepared), data.count)

            exclude = (*self.exclude, *left)
            return quantize(model, ctx, operators, exclude, work, halves, calibration_examples=data.examples)


def quantizable() -> list[str]:
    """ONNX operators that ONNX Runtime can quantize statically."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})
