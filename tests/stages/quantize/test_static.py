"""Channels of unlike sizes are balanced before ranges are measured: 8 bits then hold what they lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from pipeline.errors import StageError
from pipeline.forms.sandbox.process import DEFAULT
from pipeline.forms.sandbox.session import Outside
from pipeline.model import OnnxModel
from pipeline.stage import Stage
from pipeline.task import Split
from stages.quantize.quantizing import quantizer
from stages.quantize.static import StaticQuantization
from tests.aliases import Patch
from tests.contexts import reporting_context
from tests.graphs import graph, node
from tests.quantizing import Ran

WIDTH = 32
TEXT = torch.randn(128, 6, WIDTH, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(128, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SAFE: dict[str, Any] = {"reduce_range": True}
WHOLE: dict[str, Any] = {"per_channel": False, **SAFE}


def norms() -> onnx.ModelProto:
    """Two LayerNormalizations whose outliers the weights behind them make good: (N, 6, 32) -> (N, 6, 32)."""
    rng = np.random.default_rng(0)
    scale = np.ones(WIDTH)
    scale[[3, 17]] = 60
    weights: dict[str, Any] = {"scale": scale, "shift": rng.normal(size=WIDTH) * 0.1}
    weights |= {"up": rng.normal(size=(WIDTH, 64)) * 0.1 / scale[:, None], "bias": rng.normal(size=64) * 0.1}
    weights |= {"down": rng.normal(size=(64, WIDTH)) * 0.1, "out": rng.normal(size=(WIDTH, WIDTH)) / scale[:, None]}
    nodes = [
        node("LayerNormalization", ["x", "scale", "shift"], ["n"], "norm", axis=-1),
        node("MatMul", ["n", "up"], ["u"], "up"),
        node("Add", ["u", "bias"], ["v"], "plus"),
        node("Relu", ["v"], ["r"], "relu"),
        node("MatMul", ["r", "down"], ["d"], "down"),
        node("Add", ["d", "x"], ["s"], "sum"),
        node("LayerNormalization", ["s", "scale", "shift"], ["t"], "norm2", axis=-1),
        node("MatMul", ["t", "out"], ["output"], "last"),
    ]
    return graph(nodes, {"x": ["n", 6, WIDTH]}, {"output": ["n", 6, WIDTH]}, weights)


def convolutions() -> onnx.ModelProto:
    """A depthwise convolution between two, with channels of very unlike sizes: (N, 3, 8, 8) -> (N, 4, 8, 8)."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(-2.5, 2.5, 16))
    first = rng.normal(size=(16, 3, 3, 3)) * sizes[:, None, None, None]
    middle = rng.normal(size=(16, 1, 3, 3)) / sizes[:, None, None, None]
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], "one", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2", "b2"], ["c"], "two", pads=[1, 1, 1, 1], group=16),
        node("Relu", ["c"], ["d"]),
        node("Conv", ["d", "w3", "b3"], ["output"], "three"),
    ]
    weights: dict[str, Any] = {"w1": first, "b1": rng.normal(size=16) * sizes * 0.1, "w2": middle}
    weights |= {"b2": np.zeros(16), "w3": rng.normal(size=(4, 16, 1, 1)), "b3": np.zeros(4)}
    return graph(nodes, {"x": ["n", 3, 8, 8]}, {"output": ["n", 4, 8, 8]}, weights)


def test_smoothing_keeps_what_outliers_hide(quantized: Callable[..., Ran]) -> None:
    operators = {"operators": ("MatMul",), **WHOLE}
    plain = quantized(StaticQuantization(**operators), norms(), x=TEXT)
    smooth = quantized(StaticQuantization(smooth=0.5, **operators), norms(), x=TEXT)
    assert smooth.error < 0.35 * plain.error
    assert smooth.report["smoothed"] == ["up", "last", "down"]
    assert smooth.report["quantized"] == plain.report["quantized"]
    assert smooth.report["calibration_examples"] == 128


def test_equalizing_keeps_what_large_channels_hide(quantized: Callable[..., Ran]) -> None:
    plain = quantized(StaticQuantization(**WHOLE), convolutions(), x=IMAGES)
    equal = quantized(StaticQuantization(equalize=True, **WHOLE), convolutions(), x=IMAGES)
    assert equal.error < 0.35 * plain.error
    assert equal.report["equalized"] == ["two", "three"]
    by_channel = quantized(StaticQuantization(**SAFE), convolutions(), x=IMAGES)
    assert quantized(StaticQuantization(equalize=True, **SAFE), convolutions(), x=IMAGES).error < by_channel.error


def test_both_with_the_other_settings(quantized: Callable[..., Ran]) -> None:
    stage = StaticQuantization(
        smooth=0.5, equalize=True, rounding="adaptive", bias_correction=True, calibration="mse", bits=6, **SAFE
    )
    ran = quantized(stage, norms(), x=TEXT)
    assert ran.error < 0.3
    assert {"smoothed", "equalized"} <= {*ran.report}


@pytest.mark.parametrize(("settings", "message"), [
    ({"equalize": True}, "no layer alone reads another one.* Leave `equalize` out"),
    ({"smooth": 0.5}, "no matrix product reads a LayerNormalization or another product. Leave `smooth` out"),
])  # fmt: skip
def test_a_graph_without_a_place_for_it_is_an_error(
    settings: dict[str, Any], message: str, quantized: Callable[..., Ran]
) -> None:
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Sigmoid", ["a"], ["b"]), node("Conv", ["b", "v"], ["output"])]
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 3, 3, 3)), "v": rng.normal(size=(4, 4, 3, 3))}
    proto = graph(nodes, {"x": ["n", 3, 8, 8]}, {"output": ["n", 4, 4, 4]}, weights)
    with pytest.raises(StageError, match=message):
        quantized(StaticQuantization(**settings), proto, x=IMAGES)


def test_a_file_from_outside_gives_the_same_file(tmp_path: Path) -> None:
    onnx.save(norms(), tmp_path / "net.onnx")
    stage: Stage = StaticQuantization(smooth=0.5, equalize=True, batch_size=50)
    files = []
    for outside in (None, Outside(limits=DEFAULT)):
        model = OnnxModel(tmp_path / "net.onnx", {}, outside=outside)
        ctx, reports = reporting_context(tmp_path / str(outside is None), Split([({"x": x}, 0) for x in TEXT]))
        files.append(stage.run(model, ctx).path.read_bytes())
        assert reports["progress"][1:3] == (256, 256)
    assert files[0] == files[1]


def test_large_models_are_balanced_with_their_weights_beside(quantized: Callable[..., Ran], monkeypatch: Patch) -> None:
    stage = StaticQuantization(smooth=0.5, equalize=True, bias_correction=True, **SAFE)
    inside = quantized(stage, norms(), x=TEXT).error
    monkeypatch.setattr(quantizer, "EXTERNAL_DATA_BYTES", 0)
    assert quantized(stage, norms(), x=TEXT).error == pytest.approx(inside)
