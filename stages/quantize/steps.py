"""What ONNX Runtime's tools do, from file to file: in this process, or in a `child`. It imports no torch."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx

from pipeline.forms.sandbox.frames import Arrays
from stages.quantize.rewrite import transpose_gemms
from stages.quantize.tied_embeddings import Tied


class CalibrationData:
    """Batches of inputs as ONNX Runtime's calibrators ask for them: in order, once, one in memory at a time.

    Args:
        batches: name -> array (B, ...), by the graph's names.
        count: how many.
    """

    def __init__(self, batches: Iterator[Arrays], count: int) -> None:
        self.batches, self.count = batches, count
        self.allowed = 0

    def __len__(self) -> int:
        """Number of batches."""
        return self.count

    def set_range(self, start_index: int, end_index: int) -> None:
        """Allow the next batches; ONNX Runtime asks for adjoining ranges in order."""
        self.allowed = end_index - start_index

    def get_next(self) -> Arrays | None:
        """The next batch, None at the end of the range."""
        if not self.allowed:
            return None
        self.allowed -= 1
        return next(self.batches)


def do(step: str, source: Path, target: Path, external: bool, settings: dict[str, Any], data: CalibrationData) -> None:
    """Write what a step makes of a graph.

    Args:
        step: name of a function below.
        source: the graph's file.
        target: the file to write.
        external: whether weights go to files beside it.
        settings: of the step, JSON.
        data: read where there are batches.
    """
    arguments = {**settings, "data": data} if len(data) else settings
    {function.__name__: function for function in (prepare, static, dynamic, optimum)}[step](
        source, target, external, **arguments
    )


def prepare(source: Path, target: Path, external: bool) -> None:
    """The graph as the quantizers want it: constants and BatchNorm folded, shapes inferred."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _no_fallback():
        # ONNX's own shape inference suffices; the symbolic one stops at transformers from the torch exporter.
        quant_pre_process(source, target, skip_symbolic_shape=True, save_as_external_data=external)


def static(
    source: Path,
    target: Path,
    external: bool,
    *,
    data: CalibrationData,
    calibration: str,
    percentile: float,
    activations: str,
    **settings: Any,
) -> None:
    """The graph with 8-bit weights and activations; the arguments are those of `quantize.static` and of its library."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
    # One batch at a time: otherwise the histogram methods keep all activations of all examples in memory.
    options: dict[str, Any] = {"CalibStridedMinMax": 1}
    # ONNX Runtime makes the same integers of biases in fp32 when it loads the file, without scales and a node for each.
    options["QuantizeBias"] = False
    if calibration == "percentile":
        options["CalibPercentile"] = percentile
    quantize_static(
        source,
        target,
        data,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[methods[calibration]],
        use_external_data_format=external,
        extra_options=options,
        **settings,
    )


def dynamic(source: Path, target: Path, external: bool, **settings: Any) -> None:
    """The graph with 8-bit weights; the settings are arguments of ONNX Runtime's `quantize_dynamic`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        transpose_gemms(onnx.load(source)),
        target,
        weight_type=QuantType.QInt8,
        use_external_data_format=external,
        **settings,
    )


def optimum(
    source: Path,
    target: Path,
    external: bool,
    *,
    preset: str,
    nodes_to_exclude: Sequence[str],
    tied: Tied | None = None,
    **settings: Any,
) -> None:
    """The graph with 8-bit weights by Optimum; `source` is changed.

    Args:
        source, target, external: as in `do`.
        preset: Optimum's name of a CPU.
        nodes_to_exclude: names of nodes to leave alone.
        tied: what is known of the tables of other graphs of the model.
        settings: arguments of the preset.
    """
    from transformers import PretrainedConfig

    from pipeline.forms.seq2seq import hush

    tied = tied or Tied()
    with hush():
        from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

        proto = transpose_gemms(onnx.load(source))
        onnx.save(proto, source, save_as_external_data=external)
        apart = tied.nodes(proto.graph) if "Gather" in settings["operators_to_quantize"] else []
        config = getattr(AutoQuantizationConfig, preset)(
            is_static=False, nodes_to_exclude=[*nodes_to_exclude, *apart], **settings
        )
        # With a configuration of its own it looks for none.
        quantizer = ORTQuantizer(source, config=PretrainedConfig())
        quantizer.quantize(config, target.parent, file_suffix="optimum", use_external_data_format=external)
    after = onnx.load(source.with_name(f"{source.stem}_optimum.onnx"))
    if apart:
        tied.share(proto.graph, after.graph)
    onnx.save(after, target, save_as_external_data=external)


@contextmanager
def _no_fallback() -> Iterator[None]:
    """Raise what stopped the optimization, which the pre-processing would log, to go on without."""

    def again(_: logging.LogRecord) -> bool:
        if error := sys.exc_info()[1]:
            raise error
        return True

    with patch.object(logging.getLogger("onnxruntime.quantization.shape_inference"), "filters", [again]):
        yield
