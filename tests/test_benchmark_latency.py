"""What benchmarks/latency.py plants is planted: the model waits so long and the baseline does not."""

import importlib.util
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from stages.benchmark.latency import Latency
from stages.benchmark.runners import onnxruntime
from stages.benchmark.runners.loaded import Loaded
from tests.aliases import Make, Patch
from tests.graphs import products

PLANTED = Path(__file__).parents[1] / "benchmarks" / "planted"


def test_an_inference_is_longer_by_its_share(monkeypatch: Patch) -> None:
    source = importlib.util.spec_from_file_location("busy_runner", PLANTED / "busy_runner.py")
    runner: Any = importlib.util.module_from_spec(source)  # type: ignore[arg-type]
    source.loader.exec_module(runner)  # type: ignore[union-attr]
    own = Loaded(lambda inputs: lambda: sleep(0.01), dict, {})
    monkeypatch.setattr(onnxruntime, "load", lambda spec: own)
    began = perf_counter()
    runner.load({"share": 2}).prepare({})()
    assert perf_counter() - began >= 0.03


def test_the_baseline_does_not_wait(tmp_path: Path, context: Make) -> None:
    (runtime,) = Latency.model_validate({"runtimes": ["busy.py"]}, context={"folder": PLANTED}).runtimes
    model, baseline = (products(tmp_path / f"{name}.onnx", 2, width=64) for name in ("model", "baseline"))
    ctx = context(baseline=baseline)
    shares = [runtime.convert(one, ctx, tmp_path, 1)["share"] for one in (model, baseline)]
    assert shares == [0.1, 0]
