"""The ranges of activations, by ONNX Runtime's calibrators; what has none that 8 bits could hold is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import (
    EntropyCalibrater,
    HistogramCollector,
    MinMaxCalibrater,
    PercentileCalibrater,
    TensorsData,
)

from pipeline.forms.deployed.values import Values
from pipeline.forms.sandbox.frames import Arrays
from stages.quantize.graphs.masks import LARGE, hides
from stages.quantize.quantizing.calibration_data import CalibrationData
from stages.quantize.rounding.scales import least_range

BINS = 4096
"""Of the histogram from whose values the range of least squared error is chosen, before it grows."""


class Histograms(HistogramCollector):  # type: ignore[misc]  # of ONNX Runtime, which is not typed
    """One histogram a value; a value that is not finite gets none, and one of which none can be made is named.

    Args:
        makers: the names of the nodes that give the values.
        squared: whether ranges have the least squared error, whatever the collector's method.
        settings: of ONNX Runtime's collector.
    """

    def __init__(self, makers: dict[str, str], squared: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.makers, self.squared = makers, squared
        self.histogram_dict: dict[str, Any] = {}
        self.infinite: set[str] = set()

    def collect(self, name_to_arr: dict[str, list[Any]]) -> None:
        """Add a batch of values."""
        for name, arrays in name_to_arr.items():
            if name in self.infinite or not all(np.isfinite(array).all() for array in arrays):
                self.infinite.add(name)
                self.histogram_dict.pop(name, None)
            else:
                self._named(name, super().collect, {name: arrays})

    def compute_collection_result(self) -> dict[str, Any]:
        """The ranges, by value."""
        histograms: dict[str, Any] = self.histogram_dict
        ranges: dict[str, Any] = {}
        for name, histogram in histograms.items():
            self.histogram_dict = {name: histogram}
            ranges |= self._named(name, self._least if self.squared else super().compute_collection_result)
        self.histogram_dict = histograms
        return ranges

    def _least(self) -> dict[str, Any]:
        return {
            name: (*map(np.float32, least_range(counts, edges, float(low), float(high))), counts, edges)
            for name, (counts, edges, low, high, _) in self.histogram_dict.items()
        }

    def _named(self, name: str, do: Callable[..., Any], *args: Any) -> Any:
        try:
            return do(*args)
        except (ValueError, IndexError, AssertionError) as error:
            node = f"the node `{self.makers[name]}`" if name in self.makers else f"the input `{name}`"
            fix = "Choose calibration: minmax, or exclude the nodes beside it"
            problem = f"no range by {self.method} of what {node} gives: {error}"
            raise ValueError(f"{problem.rstrip('.')}. {fix}") from error


def ranges_of(
    source: Path, folder: Path, values: set[str], data: CalibrationData, method: str, percentile: float
) -> tuple[TensorsData, set[str]]:
    """The ranges of values over the calibration data, and the names of those that 8 bits cannot hold.

    Args:
        source: the graph's file.
        folder: for files on the way.
        values: names of those that a quantized node reads or writes.
        data: the calibration data.
        method: minmax, entropy, percentile or mse.
        percentile: share of values inside the range, in per cent.

    Raises:
        ValueError: a value has no range.
    """
    calibrator = _calibrator(source, folder / "augmented.onnx", method, percentile)
    select = calibrator.select_tensors_to_calibrate

    def selected(model: onnx.ModelProto) -> tuple[set[str], dict[str, Any]]:
        tensors, infos = select(model)
        return tensors & values, infos

    calibrator.select_tensors_to_calibrate = selected
    calibrator.augment_graph()
    calibrator.create_inference_session()
    # One batch at a time: otherwise the histogram methods keep all activations of all examples in memory.
    for _ in range(len(data)):
        data.allow()
        calibrator.collect_data(data)
    ranges = calibrator.compute_data()
    hidden = {name for name, tensor in ranges.items() if not np.isfinite(tensor.range_value).all()}
    if method != "minmax":
        hidden |= calibrator.collector.infinite
    hidden |= _hiding(source, ranges, hidden, data.first)
    ranges.data = {name: tensor for name, tensor in ranges.items() if name not in hidden}
    return ranges, hidden


def _calibrator(source: Path, augmented: Path, method: str, percentile: float) -> Any:
    if method == "minmax":
        return MinMaxCalibrater(source, None, str(augmented), use_external_data_format=True)
    if method in ("entropy", "mse"):
        calibrator = EntropyCalibrater(source, None, str(augmented), use_external_data_format=True)
        calibrator.num_bins = BINS if method == "mse" else calibrator.num_bins
    else:
        calibrator = PercentileCalibrater(
            source, None, str(augmented), use_external_data_format=True, symmetric=True, percentile=percentile
        )
    names = ("method", "symmetric", "num_bins", "num_quantized_bins", "percentile", "scenario")
    makers = {name: node.name for node in calibrator.model.graph.node for name in node.output}
    calibrator.collector = Histograms(makers, method == "mse", **{name: getattr(calibrator, name) for name in names})
    return calibrator


def _hiding(source: Path, ranges: TensorsData, hidden: set[str], first: Arrays) -> set[str]:
    """Of the values with a large range those that it hides, as the first batch shows them."""
    ends = {name: tensor.range_value for name, tensor in ranges.items() if name not in hidden}
    large = [name for name, range_value in ends.items() if np.abs(range_value).max() >= LARGE]
    if not large:
        return set()
    seen = Values(source, large, optimize=False).of(first)
    return {name for name in large if hides(np.append(seen[name].clip(*ends[name]), ends[name]))}
