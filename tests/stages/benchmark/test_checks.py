"""Runtimes that are refused before work: without the GPU that they need, or there twice."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import ConfigError, StageError
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split
from stages.benchmark.checks import check_runtimes
from stages.benchmark.latency import Latency
from stages.benchmark.runners import onnxruntime as runner
from stages.benchmark.runtimes.onnxruntime_cuda import CudaOnnxRuntime
from stages.benchmark.runtimes.tensorrt.tensorrt import TensorRt
from stages.benchmark.runtimes.torch_cuda import CudaTorch
from tests.aliases import Make, Patch
from tests.contexts import preview_of, refused
from tests.gpus import LISTED, driver
from tests.graphs import products

DATA: Split = Split([(torch.rand(64), 0) for _ in range(8)])  # type: ignore[arg-type]
NONE = "nvidia-smi is not found"
GPUS = ["onnxruntime_cuda", "tensorrt", "torch_cuda"]


def stage_of(*runtimes: Any) -> Latency:
    return Latency.model_validate({"runtimes": list(runtimes), "rounds": 1, "iterations": 5, "examples": 4})


def told(stage: Latency, model: TorchModel) -> list[str]:
    return [text for text in stage.check([], preview_of(model)) if "skipped" in text]


def test_without_a_gpu_the_plan_says_what_will_be_skipped(tmp_path: Path, tiny: Make, monkeypatch: Patch) -> None:
    driver(tmp_path, monkeypatch, None)
    lines = told(stage_of("onnxruntime", *GPUS), tiny())
    assert [line.split()[2].rstrip(",") for line in lines] == GPUS
    assert all(NONE in line for line in lines)


def test_without_a_gpu_its_row_is_skipped_and_the_others_go_on(
    tmp_path: Path, context: Make, monkeypatch: Patch
) -> None:
    driver(tmp_path, monkeypatch, None)
    warnings: list[str] = []
    model = products(tmp_path / "m.onnx", 2, width=64)
    stage = stage_of("onnxruntime_cuda", "onnxruntime")
    stage.run(model, context(warn=warnings.append, calibration=DATA))
    skipped, row = context.reports["latency"]  # type: ignore[attr-defined]
    assert NONE in skipped["skipped"]
    assert NONE in skipped["reasons"]["ratio"]
    assert row["samples"] == 5
    assert any(text.startswith("onnxruntime_cuda: not timed: ") for text in warnings)
    with pytest.raises(StageError, match=f"^tensorrt: .*{NONE}"):
        stage_of({"use": "tensorrt", "required": True}, "onnxruntime").run(model, context(calibration=DATA))


def test_one_that_is_required_or_alone_is_refused_without_a_gpu(tmp_path: Path, tiny: Make, monkeypatch: Patch) -> None:
    driver(tmp_path, monkeypatch, None)
    required = stage_of("onnxruntime", {"use": "torch_cuda", "required": True})
    refused(f"torch_cuda, which is required: .*{NONE}", required.check([], preview_of(tiny())))
    refused(f"no runtime of `runtimes` can run here: .*{NONE}", stage_of(*GPUS).check([], preview_of(tiny())))


@pytest.mark.parametrize(("name", "message"), [
    ("torch_cuda", "is built without CUDA: install a build for it from https://pytorch.org"),
    ("onnxruntime_cuda", "is built without CUDAExecutionProvider: pip install onnxruntime-gpu"),
    ("tensorrt", "is built without TensorrtExecutionProvider: pip install onnxruntime-gpu tensorrt"),
])  # fmt: skip
def test_with_a_gpu_what_is_not_installed_is_refused(
    name: str, message: str, tmp_path: Path, tiny: Make, monkeypatch: Patch
) -> None:
    driver(tmp_path, monkeypatch, LISTED)
    refused(f"which cannot run here: .*{message}", stage_of("onnxruntime", name).check([], preview_of(tiny())))


def test_a_key_says_that_hardware_was_absent(tmp_path: Path, monkeypatch: Patch) -> None:
    driver(tmp_path, monkeypatch, None)
    assert NONE in str(CudaTorch(use="torch_cuda").rests_on()["absent"])


def test_nodes_run_in_the_order_of_the_providers(tmp_path: Path, context: Make) -> None:
    model = products(tmp_path / "m.onnx", 2)
    cuda = CudaOnnxRuntime(use="onnxruntime_cuda").convert(model, context(), tmp_path, 1)
    assert cuda["providers"] == [["CUDAExecutionProvider", {"use_tf32": "0"}], ["CPUExecutionProvider", {}]]
    engines: Any = TensorRt(use="tensorrt").convert(model, context(), tmp_path, 1)["providers"]
    assert [name for name, _ in engines] == ["TensorrtExecutionProvider", *(name for name, _ in cuda["providers"])]  # type: ignore[union-attr]
    assert "trt_int8_enable" not in engines[0][1]
    with pytest.raises(SystemExit, match=r"fell back to .'CPUExecutionProvider'., expected CUDAExecutionProvider, CPU"):
        runner.load({**cuda, "threads": 1})


def test_one_that_is_there_twice_is_refused() -> None:
    twice = Latency.model_validate({"runtimes": ["onnxruntime", {"use": "onnxruntime", "on": {"cpus": [0]}}] * 2})
    with pytest.raises(ConfigError, match="`runtimes` has onnxruntime twice"):
        [*check_runtimes(twice.runtimes, OnnxModel, 1)]
    assert [*check_runtimes(twice.runtimes[:2], OnnxModel, 1)] == []
