"""Static quantization: 8-bit weights and activations, with ranges measured on calibration data."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import onnx
from pydantic import Field

from pipeline.errors import ConfigError, StageError
from pipeline.model import Inputs, OnnxModel
from pipeline.stage import Context, Outlook, Stage
from pipeline.task import Batch, Split
from stages.quantize.onnx_tools import SATURATION, check_before, check_operators, quantize, saturates

FEW = 100


class StaticQuantization(Stage):
    """An ONNX file with 8-bit weights and activations, the ranges of the activations fixed by calibration.

    Choose it for convolutional networks, and for whatever has typical inputs at hand: it is the fastest form on CPUs.
    `quantize.dynamic` needs no data. Weights w become round(w / s) with s = max|w| / 127 per output channel.

    Example:
        - {use: quantize.static, calibration: percentile, percentile: 99.9}

    Reference: Benoit Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018, arXiv:1712.05877, eq. 1; per channel: Raghuraman Krishnamoorthi,
    "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018, arXiv:1806.08342.
    """

    activations: Literal["uint8", "int8"] = Field(
        "uint8", description="type of the activations; uint8 is the fast one on x86, int8 suits Arm and TensorRT"
    )
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        "minmax", description="how ranges are chosen: all values, least KL divergence, or without the rarest values"
    )
    percentile: float = Field(
        99.99, gt=50, le=100, description="share of values inside the range, in per cent, for calibration: percentile"
    )
    examples: int | None = Field(None, ge=1, description="calibration examples at most; null takes the whole split")
    batch_size: int = Field(64, ge=1, description="calibration examples a batch; the memory it takes grows with it")
    per_channel: bool = Field(True, description="a scale for each output channel instead of one for each weight")
    reduce_range: bool = Field(
        False, description="7-bit weights, against saturation on x86 CPUs without VNNI (before about 2019)"
    )
    operators: tuple[str, ...] | None = Field(
        None, min_length=1, description="ONNX operators to quantize; null takes all that can be"
    )
    exclude: tuple[str, ...] = Field((), description="names of nodes to leave in fp32")

    def check(self, before: Sequence[Stage], outlook: Outlook) -> Iterable[str]:
        """Refuse unknown operators and a percentile without its method; warn of few calibration examples."""
        check_before(before)
        check_operators(self.operators or (), quantizable())
        default = type(self).model_fields["percentile"].default
        if self.percentile != default and self.calibration != "percentile":
            raise ConfigError(
                f"`percentile` is {self.percentile:g} and `calibration` is {self.calibration}",
                fix="Set calibration: percentile, or leave percentile out",
            )
        found = outlook.examples.get("calibration", 0)
        used = min(found, self.examples or found)
        if used < FEW:
            yield f"calibration uses {used} examples of {found}; ranges are steadier with {FEW} or more"
        if self.activations == "uint8" and not self.reduce_range and saturates():
            yield SATURATION

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The quantized file. Raises StageError when no node was quantized or a node's name is unknown."""
        used = min(len(ctx.calibration), self.examples or len(ctx.calibration))
        if not used:
            raise StageError("the calibration split is empty", expected="typical inputs, 100 or more")

        def work(graph: onnx.GraphProto, source: Path, target: Path, external: bool) -> None:
            with ctx.progress("calibration", used) as advance:
                data = CalibrationData(ctx.calibration, used, self.batch_size, _inputs(graph), advance, model.feed)
                self._quantize(source, target, external, data)

        return quantize(model, ctx, self.operators or quantizable(), self.exclude, work, calibration_examples=used)

    def _quantize(self, source: Path, target: Path, external: bool, data: "CalibrationData") -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        methods = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
        # One batch at a time: otherwise the histogram methods keep all activations of all examples in memory.
        options: dict[str, Any] = {"CalibStridedMinMax": 1}
        if self.calibration == "percentile":
            options["CalibPercentile"] = self.percentile
        quantize_static(
            source,
            target,
            data,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(self.operators or quantizable()),
            nodes_to_exclude=list(self.exclude),
            per_channel=self.per_channel,
            reduce_range=self.reduce_range,
            activation_type=QuantType.QUInt8 if self.activations == "uint8" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[methods[self.calibration]],
            use_external_data_format=external,
            extra_options=options,
        )


class CalibrationData:
    """Batches of inputs as ONNX Runtime's calibrators ask for them: in order, once, one in memory at a time.

    Args:
        split: where examples come from, the first `examples` of them.
        examples: how many.
        batch_size: examples a batch.
        names: inputs that the graph takes.
        advance: told the number of examples of each batch that is read.
        feed: the task's inputs -> what the graph takes.
    """

    def __init__(
        self,
        split: Split,
        examples: int,
        batch_size: int,
        names: list[str],
        advance: Callable[..., None],
        feed: Callable[[Inputs], Inputs] = lambda inputs: inputs,
    ) -> None:
        self.loader = split.select(list(range(examples))).loader(batch_size)
        self.names, self.advance, self.feed = names, advance, feed
        self.batches: Iterator[Batch] = iter(self.loader)
        self.allowed = 0

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.loader)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Allow the next batches; ONNX Runtime asks for adjoining ranges in order."""
        self.allowed = end_index - start_index

    def get_next(self) -> dict[str, Any] | None:
        """The next batch as name -> array (B, ...), None at the end of the range."""
        if not self.allowed:
            return None
        self.allowed -= 1
        batch = next(self.batches)
        inputs = self.feed(batch.inputs)
        if missing := set(self.names) - set(inputs):
            raise StageError(f"the calibration data lacks {sorted(missing)}", expected=f"inputs {self.names}")
        self.advance(len(batch.index))
        return {name: inputs[name].numpy() for name in self.names}


def quantizable() -> list[str]:
    """ONNX operators that ONNX Runtime can quantize statically."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})


def _inputs(graph: onnx.GraphProto) -> list[str]:
    weights = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in weights]
