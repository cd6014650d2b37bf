import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.stage import Stage
from pipeline.task import Split
from stages.benchmark import latency
from stages.benchmark.conversion import save_inputs
from stages.benchmark.environments.sources import repeated
from stages.benchmark.latency import Latency
from stages.benchmark.processes.process import time_process
from stages.benchmark.timing.effort import EFFORTS, Effort
from stages.benchmark.timing.rows import row
from tests.aliases import Patch
from tests.contexts import preview_of, refused, reporting_context
from tests.graphs import products

EXAMPLE = {"input": torch.rand(3, 32)}
QUICK: dict[str, Any] = {"rounds": 3, "iterations": 40, "warmup": 3}
SINGLE = """
from typing import ClassVar
from stages.benchmark.runtime import Runtime


class Single(Runtime):
    package: ClassVar[str] = "numpy"
"""
SINGLE_RUNNER = """
import os
from stages.benchmark.runners.loaded import Loaded


def load(spec):
    pools = " ".join(os.environ[f"{pool}_NUM_THREADS"] for pool in ("OMP", "MKL", "OPENBLAS"))
    return Loaded(lambda inputs: lambda: None, lambda raw: {}, {"version": pools, "execution_provider": "CPU"})
"""


def torch_model() -> TorchModel:
    arguments = {"in_features": 32, "out_features": 32}
    return TorchModel.build(Reference(use="torch.nn:Linear", arguments=arguments), EXAMPLE)


def make_context(folder: Path, baseline: Model | None, **changes: Any) -> tuple[Context, dict[str, Any]]:
    data = Split([(torch.rand(32), 0)])  # type: ignore[arg-type]
    return reporting_context(folder / "stage", data, baseline=baseline, **changes)


def test_a_smaller_model_is_faster_and_is_returned_as_it_is(tmp_path: Path) -> None:
    small, big = products(tmp_path / "small.onnx", 2), products(tmp_path / "big.onnx", 400)
    ctx, reports = make_context(tmp_path, big)
    before = small.path.read_bytes()
    assert Latency(**QUICK).run(small, ctx) is small
    assert small.path.read_bytes() == before
    (line,) = reports["latency"]
    assert line["ratio"]["verdict"] == "faster"
    assert line["ratio"]["low"] < line["ratio"]["value"] < line["ratio"]["high"] < 0.7
    assert line["noise"]["low"] < line["noise"]["value"] < line["noise"]["high"]
    assert line["samples"] == 3 * 40
    assert line["min_ms"] <= line["p50_ms"] <= line["p90_ms"]
    assert line["p50_ms"] < line["baseline_p50_ms"]
    assert line["p99_ms"] is None
    assert "1000" in line["reasons"]["p99_ms"]
    assert (line["runtime"], line["threads"], line["batch"]) == ("onnxruntime", 1, 1)
    assert line["execution_provider"] == "CPUExecutionProvider"
    assert 0 < line["startup"]["first_s"] < 60 > line["startup"]["imports_s"] > 0 < line["startup"]["load_s"]
    assert 1e6 < line["memory"]["above_imports_bytes"] < line["memory"]["peak_bytes"] < 500e6
    assert line["startup"]["total_s"]["value"] > line["startup"]["load_s"]
    assert line["startup"]["ratio"]["low"] < line["startup"]["ratio"]["value"] < line["startup"]["ratio"]["high"]
    assert line["size_bytes"] == small.path.stat().st_size
    assert (line["percentiles"], line["throughput"]) == ("interpolated", None)
    assert line["energy"] or "energy" in line["reasons"]["energy"] or "RAPL" in line["reasons"]["energy"]
    assert "agreement" not in line  # it is what others are compared with
    assert reports["progress"][:3] == ("latency", 9, 9)
    assert line["beside"] == []
    assert json.dumps(reports["latency"])
    assert list(ctx.directory.iterdir()) == []


def test_every_cell_is_measured_and_without_baseline_the_ratio_is_null(tmp_path: Path) -> None:
    ctx, reports = make_context(tmp_path, None)
    Latency(batch=(1, 5), threads=(1, 2), rounds=1, iterations=5).run(products(tmp_path / "m.onnx", 2), ctx)
    assert [(r["threads"], r["batch"]) for r in reports["latency"]] == [(1, 1), (1, 5), (2, 1), (2, 5)]
    assert all(r["ratio"] is None and "no baseline" in r["reasons"]["ratio"] for r in reports["latency"])


def test_effort_tells_p90_of_64_samples_and_startup_of_further_processes(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setitem(EFFORTS, "quick", Effort(rounds=1, seconds=1e-9, samples=64))
    monkeypatch.setattr(latency, "STARTUPS", 3)
    ctx, reports = make_context(tmp_path, products(tmp_path / "big.onnx", 20))
    Latency(effort="quick", warmup=2).run(products(tmp_path / "small.onnx", 2), ctx)
    (line,) = reports["latency"]
    assert (line["samples"], line["rounds"], line["startup"]["processes"]) == (64, 1, 3)
    assert line["percentiles"] == "early stopping"
    assert line["p90_ms"] == pytest.approx(line["distribution_ms"]["model"][100], rel=1e-3)  # the largest of so few
    assert "it needs 662" in line["reasons"]["p99_ms"]
    assert reports["progress"] == ("latency", 3 + 2 * 2, 7, 7)


def test_throughput_is_measured_for_each_number_of_requests(tmp_path: Path) -> None:
    ctx, reports = make_context(tmp_path, None)
    settings = {"runtimes": ["onnxruntime", "openvino"], "rounds": 1, "iterations": 5, "seconds": 0.05, "examples": 0}
    stage = Latency.model_validate({**settings, "batch": [3], "concurrency": [1, 4]})
    stage.run(products(tmp_path / "m.onnx", 2), ctx)
    for line in reports["latency"]:
        assert [(one["concurrency"], one["batch"]) for one in line["throughput"]] == [(1, 3), (4, 3)]
        assert all(one["per_second"]["value"] > 0 and 0.05 <= one["seconds"] < 20 for one in line["throughput"])
        assert line["samples"] == 5


def test_a_runtime_of_one_request_at_a_time_says_so(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (tmp_path / "single.py").write_text(SINGLE)
    (tmp_path / "single_runner.py").write_text(SINGLE_RUNNER)
    ctx, reports = make_context(tmp_path, None)
    settings = {"runtimes": ["single.py"], "rounds": 1, "iterations": 2, "seconds": 0.01, "examples": 0}
    stage = Latency.model_validate({**settings, "threads": [2], "concurrency": [1, 2]}, context={"folder": tmp_path})
    stage.run(products(tmp_path / "m.onnx", 2), ctx)
    (line,) = reports["latency"]
    assert [one["per_second"] is None for one in line["throughput"]] == [False, True]
    assert "one request at a time" in line["reasons"]["throughput"]
    assert line["version"] == "2 2 2"  # of each pool of threads that what it loads may have


def test_two_rounds_are_inconclusive(tmp_path: Path) -> None:
    times = {name: [[1.0] * 30, [1.0] * 30] for name in ("model", "baseline", "again")}
    line: dict[str, Any] = row(times)
    assert line["ratio"] == {"value": 1.0, "low": None, "high": None, "verdict": "inconclusive"}
    assert "2 rounds" in line["reasons"]["ratio"]


def test_torch_runs_in_its_process(tmp_path: Path) -> None:
    ctx, reports = make_context(tmp_path, products(tmp_path / "m.onnx", 2))
    model = torch_model()
    assert Latency(runtimes=("torch",), rounds=1, iterations=5, examples=0, score=False).run(model, ctx) is model
    (line,) = reports["latency"]
    assert (line["score"], line["reasons"]["score"]) == (None, "`score` is false")
    assert line["samples"] == 5
    assert "ONNX" in line["reasons"]["ratio"]


def test_torch_form_is_deployed_for_onnxruntime(tmp_path: Path) -> None:
    file = products(tmp_path / "m.onnx", 2)
    ctx, reports = make_context(tmp_path, None, deployed=lambda model: file)
    Latency(rounds=1, iterations=5).run(torch_model(), ctx)
    assert reports["latency"][0]["samples"] == 5


def test_a_broken_model_fails_with_the_childs_last_lines(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    ctx, _ = make_context(tmp_path, None)
    with pytest.raises(StageError, match=r"broken\.onnx ended with 1: .*Protobuf"):
        Latency(rounds=1).run(OnnxModel(tmp_path / "broken.onnx", EXAMPLE), ctx)


def test_fallback_of_the_execution_provider_is_an_error(tmp_path: Path) -> None:
    code = (
        "import onnxruntime, sys; from stages.benchmark.runners import onnxruntime as runner;"
        "onnxruntime.InferenceSession = type('S', (), {'__init__': lambda *a, **k: None,"
        " 'get_providers': lambda s: ['AzureExecutionProvider']});"
        "runner.load({'threads': 1, 'model': 'x'})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "fell back to ['AzureExecutionProvider']" in ended.stderr


def spec_of(folder: Path, **rest: Any) -> dict[str, Any]:
    """What a child is told to time."""
    model, inputs = products(folder / "m.onnx", 2).path, save_inputs(repeated(EXAMPLE, 4), folder / "i.npz")
    spec = {"runner": "onnxruntime", "model": str(model), "inputs": inputs, "threads": 1, "warmup": 1, "seconds": 1}
    return {**spec, **rest}


def test_the_onnxruntime_child_does_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(spec_of(tmp_path, iterations=5, result=str(tmp_path / "r.json"))))
    code = (
        "import sys; from pathlib import Path; from stages.benchmark.runners.child import main;"
        "main(Path(sys.argv[1])); sys.exit(7 if 'torch' in sys.modules else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "spec.json")], check=False).returncode == 0
    assert len(json.loads((tmp_path / "r.json").read_text())["samples_ns"]) == 5


def test_a_users_module_in_the_current_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    samples, _ = time_process(spec_of(tmp_path, iterations=2), tmp_path)
    assert len(samples) == 2


def test_inputs_are_repeated_to_the_batch(tmp_path: Path) -> None:
    with np.load(save_inputs(repeated(EXAMPLE, 7), tmp_path / "i.npz"), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["input"], EXAMPLE["input"].numpy()[[0, 1, 2, 0, 1, 2, 0]])


class ToOnnx(Stage):
    def run(self, model: TorchModel, ctx: Context) -> OnnxModel:
        raise NotImplementedError


def test_check_refuses_torch_for_an_onnx_file_and_warns(tmp_path: Path) -> None:
    preview = preview_of(torch_model())
    stage = Latency(runtimes=("torch",))
    assert list(stage.check([], preview)) == []
    refused(r"torch.*ONNX file.*Leave torch out", stage.check([ToOnnx()], preview))
    (threads,) = Latency(threads=(9999,)).check([], preview)
    assert "9999" in threads
    (rounds,) = Latency(rounds=2).check([], preview)
    assert "inconclusive" in rounds


def test_torch_for_an_onnx_file_is_an_error_at_run_time_too(tmp_path: Path) -> None:
    ctx, _ = make_context(tmp_path, None)
    with pytest.raises(StageError, match="Leave torch out"):
        Latency(runtimes=("torch",)).run(products(tmp_path / "m.onnx", 2), ctx)


@pytest.mark.parametrize("wrong", [{"runtimes": ()}, {"threads": (0,)}, {"rounds": 0}, {"runtimes": ("tvm",)}])
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Latency(**wrong)
