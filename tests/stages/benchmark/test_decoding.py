from functools import partial
from pathlib import Path

import onnx
import onnxruntime
import pytest

from pipeline.task import Split
from stages.benchmark.decoding import DECODES, decoding_warning, stays_packed
from stages.benchmark.latency import Latency
from stages.benchmark.runtimes import onnxruntime as runtime
from tests.contexts import reporting_context
from tests.graphs import products
from tests.packing import ternary


def test_onnx_runtime_decodes_once(tmp_path: Path) -> None:
    assert decoding_warning(ternary(tmp_path / "packed.onnx").path) == ""
    assert decoding_warning(tmp_path / "plain.onnx") == ""


def test_a_process_that_cannot_tell_says_why(tmp_path: Path) -> None:
    path = ternary(tmp_path / "packed.onnx").path
    proto = onnx.load(path)
    proto.opset_import[0].version = 999
    onnx.save(proto, path)
    warning = decoding_warning(path)
    assert warning.startswith("whether ONNX Runtime decodes weights of this file at each call")
    assert "is not known: the process that looks ended with 1: " in warning
    assert "999" in warning


def test_a_runtime_that_folds_nothing_decodes_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ternary(tmp_path / "packed.onnx").path
    assert not stays_packed(path)
    unfolding = partial(onnxruntime.InferenceSession, disabled_optimizers=["ConstantFolding"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", unfolding)
    assert stays_packed(path)


@pytest.mark.parametrize("warning", [DECODES, ""])
def test_of_that_latency_warns(warning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(runtime, "decoding_warning", lambda *_: warning)
    model = products(tmp_path / "net.onnx", 1)
    ctx, _ = reporting_context(tmp_path, Split([]), warn=warnings.append)  # type: ignore[arg-type]
    Latency(rounds=1, iterations=1, warmup=0).run(model, ctx)
    assert [text for text in warnings if "decodes weights" in text] == ([warning] if warning else [])
