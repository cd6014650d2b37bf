"""Records made by hand, with every field that the files show, and a browser that sees pages."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.estimate import Estimate
from pipeline.records.comparison import ComparisonRecord, StrategyRecord, Timing
from pipeline.records.parts.models import ClassMeasure, Flips
from pipeline.records.parts.stages import Spread
from pipeline.records.record import Failure, Origin, Record
from tests import records

KEPT = Estimate(value=0.98, low=0.97, high=0.99)
MEASURED: dict[str, Any] = {
    "size_bytes": 12_000, "payload_bytes": 11_000, "params": 2740, "macs": 157_000, "seconds": 1.25,
    "folder": "m", "file": "m/model.onnx", "predictions": "p",
}  # fmt: skip


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Record]:
    """record(**changes): a run of two stages that keeps its budget."""
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    classes = [
        ClassMeasure(
            label=f"class {i}",
            support=40,
            score=0.9,
            retention=Estimate(value=value, low=value / 2, high=value * 1.2),
            flips=Flips(lost=i, gained=0),
        )
        for i, value in enumerate([1.0, 0.5, 0.9, 0.7, 0.8])
    ]
    small: dict[str, Any] = {**MEASURED, "size_bytes": 3_000, "compression_ratio": 4.0, "retention": KEPT}
    rows: list[Any] = [{"runtime": "onnxruntime", "ratio": {"value": 0.5, "low": 0.4, "high": 0.6}}]

    def make(**changes: Any) -> Record:
        given: dict[str, Any] = {
            "run": "20260101-chain-ab12",
            "folder": str(folder),
            "config": {"name": "chain"},
            "seed": 7,
            "environment": {"git_commit": "a" * 40, "git_dirty": False, "versions": {"onnxruntime": "1.2.3"}},
            "baseline": records.model(**MEASURED),
            "stages": [
                records.stage(0, "quantize.static", **small, classes=classes),
                records.stage(1, "benchmark.latency", **small, classes=classes, latency=rows),
            ],
            "gates": [records.gate()],
            "verdict": "pass",
            "origin": Origin(file="my chain.yaml", overrides=["stages.0.epochs=2"], strategy="a + b"),
        }
        return records.record(**{**given, **changes})

    return make


@pytest.fixture
def comparison(tmp_path: Path) -> Callable[..., ComparisonRecord]:
    """comparison(**changes): a baseline, a chosen strategy, and one that failed."""
    folder = tmp_path / "runs" / "compared"
    folder.mkdir(parents=True)
    figures: dict[str, Any] = {
        "size_bytes": 3000.0,
        "params": 2740.0,
        "macs": 157_000.0,
        "compression_ratio": 4.0,
        "score": Spread(mean=0.9, deviation=0.01, count=3),
        "retention": KEPT,
        "validation_retention": Estimate(value=0.96, low=0.95, high=0.97),
        "latency": [Timing(runtime="onnxruntime", threads=1, batch=1, value=0.5, low=0.4, high=0.6)],
        "seconds": 12.0,
    }

    def make(**changes: Any) -> ComparisonRecord:
        given: dict[str, Any] = {
            "comparison": "20260101-strategies",
            "folder": str(folder),
            "started": "2026-01-01T10:00:00+00:00",
            "origins": ["strategies.yaml"],
            "strategies": [
                StrategyRecord(name="baseline", size_bytes=12_000, verdicts=[None]),
                StrategyRecord(name="quantize", claim="4x", on_front=True, chosen=True, verdicts=["pass"], **figures),
                StrategyRecord(
                    name="prune", failures={"1": Failure(where="stages[0]", message="it broke", exit_code=3)}
                ),
            ],
            "indistinguishable": [("quantize", "prune")],
            "choice": "quantize",
            "choice_reason": "smallest of the strategies that keep 0.95",
            "test_samples": 400,
            "validation_samples": 100,
        }
        return ComparisonRecord(**{**given, **changes})

    return make


def chromium() -> str | None:
    return next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; where there is none the test is skipped, under CI it fails."""
    path = chromium()
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no Chromium, and CI must look at the pages")
        pytest.skip("there is no Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        shown = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield shown
        shown.close()
