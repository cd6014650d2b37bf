from functools import partial
from pathlib import Path

import onnxruntime
import pytest

from pipeline.task import Split
from stages.benchmark import latency
from stages.benchmark.decoding import decodes, stays_packed
from stages.benchmark.latency import Latency
from stages.benchmark.rounds import ROOT
from tests.contexts import reporting_context
from tests.graphs import products
from tests.packing import ternary


def test_onnx_runtime_decodes_once(tmp_path: Path) -> None:
    assert not decodes(ternary(tmp_path / "packed.onnx").path, ROOT)
    assert not decodes(tmp_path / "plain.onnx", ROOT)


def test_a_runtime_that_folds_nothing_decodes_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ternary(tmp_path / "packed.onnx").path
    assert not stays_packed(path)
    unfolding = partial(onnxruntime.InferenceSession, disabled_optimizers=["ConstantFolding"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", unfolding)
    assert stays_packed(path)


@pytest.mark.parametrize("slow", [True, False])
def test_of_that_latency_warns(slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(latency, "decodes", lambda *_: slow)
    model = products(tmp_path / "net.onnx", 1)
    ctx, _ = reporting_context(tmp_path, Split([]), warn=warnings.append)  # type: ignore[arg-type]
    Latency(rounds=1, iterations=1, warmup=0).run(model, ctx)
    assert any("decodes weights of this file at each call" in warning for warning in warnings) == slow
