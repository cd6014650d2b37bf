"""Records with everything that a page can show."""

import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.base.estimate import Estimate
from pipeline.records.comparison import ComparisonRecord, PairTest, StrategyRecord, Timing
from pipeline.records.parts.chosen import Chosen, Pair
from pipeline.records.parts.flipped import Confusion, Example, Flipped
from pipeline.records.parts.gates import GateRecord
from pipeline.records.parts.models import ClassMeasure, Flips
from pipeline.records.parts.stages import Gain, Spread
from pipeline.records.record import Failure, Origin, Record
from pipeline.runner import run
from tests.records import bench, model, packing, stage
from tests.records import record as hand_made

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;%{x}${y}"


@pytest.fixture(scope="session")
def kept_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one run that these tests share lies, once it was made."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def record(project: Callable[..., Path], kept_runs: Path, tmp_path: Path) -> Record:
    """The record of a real run of a tiny chain, in a folder of the test's own."""
    if not (kept_runs / "run").exists():
        made = run(project(), runs=tmp_path / "made", track=False)
        shutil.copytree(made.folder, kept_runs / "run", ignore=shutil.ignore_patterns("report.html"))
    folder = tmp_path / "runs" / "a run"
    shutil.copytree(kept_runs / "run", folder)
    return Record.load(folder)


def estimate(value: float, reach: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - reach, high=value + reach)


def latency_row(threads: int = 1, times: float = 1.0) -> dict[str, Any]:
    """A row as benchmark.latency writes it, with quantiles of a skewed distribution."""
    quantiles = [times * (0.05 + 0.02 * math.exp(i / 30)) for i in range(101)]
    return {
        "runtime": "onnxruntime",
        "threads": threads,
        "batch": 1,
        "execution_provider": "CPUExecutionProvider",
        "rounds": 5,
        "samples": 5000,
        "p50_ms": quantiles[50],
        "p90_ms": quantiles[90],
        "p99_ms": None,
        "p999_ms": None,
        "ratio": {"value": 0.31 * times, "low": 0.29 * times, "high": 0.34 * times, "verdict": "faster"},
        "noise": {"value": 1.01, "low": 0.97, "high": 1.05},
        "baseline_p50_ms": 3.1 * quantiles[50],
        "reasons": {"p99_ms": "800 samples; it needs 1000", "p999_ms": "800 samples; it needs 10000"},
        "distribution_ms": {"model": quantiles, "baseline": [3.1 * value for value in quantiles]},
    }


WHY = "the converter of mnn ended with 3: it does not take the operators of a quantized file: DequantizeLinear"


def runtimes(times: float) -> list[dict[str, Any]]:
    """Rows of a strategy: one that is another model, and one that was skipped."""
    score = {"value": 0.95, "verdict": "same decisions"}
    return [
        bench(score=score, median=(times, times - 0.1, times + 0.2)), bench("ncnn", peak=38e6, score=score),
        bench("openvino", settings={"precision": "native"}, score={**score, "verdict": "other model"}),
        {"runtime": "mnn", "threads": 1, "batch": 1, "skipped": WHY},
    ]  # fmt: skip


def chosen(strategy: str | None = None, threads: int = 1) -> Chosen:
    pair = Pair(strategy=strategy, runtime="onnxruntime", threads=threads, batch=1)
    return Chosen(by="latency", retention=0.97, pair=pair, value=1.0, reason="fastest of the 3 of 8 pairs")


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(exist_ok=True)
    image = Image.new("L", (8, 8))
    image.putdata([(x * y * shade) % 256 for y in range(8) for x in range(8)])
    data = io.BytesIO()
    image.save(data, "PNG")
    path.write_bytes(data.getvalue())


def examples(folder: Path) -> list[Example]:
    """An image that is there, one that is not, a text, and a curve."""
    picture(folder / "examples" / "17.png", 7)
    common: dict[str, Any] = {"label": "3", "baseline": "3", "predicted": "8", "baseline_score": 1.0, "score": 0.0}
    wave = [math.sin(i / 9) + 0.3 * math.sin(i / 2) for i in range(120)]
    return [
        Example(index=17, kind="image", file="examples/17.png", **common),
        Example(index=18, kind="image", file="examples/gone.png", **common),
        Example(index=19, kind="text", text="the quick brown fox jumps over a lazy dog", **common),
        Example(index=20, kind="numbers", numbers=wave, **common),
    ]


@pytest.fixture
def hostile() -> str:
    """Text that would run, break out, or be filled in, were it not shown as text."""
    return HOSTILE


@pytest.fixture
def enriched() -> Callable[[Record], Record]:
    """enriched(record): the record of a real run with all that a page can show."""

    def make(record: Record) -> Record:
        folder = Path(record.folder)
        last = record.stages[-1]
        last.classes = [
            ClassMeasure(label=str(i), support=30 + i, score=0.9, retention=estimate(0.99 - 0.01 * i, 0.03),
                         flips=Flips(lost=i, gained=1))
            for i in range(10)
        ]  # fmt: skip
        last.latency = [
            latency_row(),
            latency_row(2, 0.8),
            {"runtime": "mnn", "threads": 1, "batch": 1, "skipped": WHY},
        ]
        record.chosen = chosen(threads=2)
        last.cached = True
        last.reports["packing"] = packing()
        last.gain = Gain(
            **estimate(0.012).model_dump(),
            by_seed=[estimate(0.012)],
            student=Spread(mean=0.97),
            control=Spread(mean=0.958),
            control_drop=estimate(0.03),
        )
        confusions = [
            Confusion(label=str(a), predicted=str(b), count=n) for a, b, n in ((3, 8, 5), (4, 9, 2), (1, 7, 1))
        ]
        record.flipped = Flipped(confusions=confusions, examples=examples(folder))
        record.gates = [
            GateRecord(name="retention", limit=0.95, value=0.97, low=0.94, high=1.0, verdict="inconclusive",
                       message="retention is 0.970 [0.940, 1.000], the limit 0.95",
                       fix="Take 900 test examples instead of 128", samples_needed=900),
            GateRecord(name="size_bytes", limit=12000, value=9000, verdict="pass", message="size_bytes is 9,000"),
            GateRecord(name="latency", limit=0.5, value=None, verdict="skipped", message="no stage measured it",
                       counts_as="warn", fix="Add benchmark.latency"),
            GateRecord(name="worst_class", limit=0.9, value=0.85, verdict="fail", message="class 9 kept 0.85",
                       fix="Distill for more epochs"),
        ]  # fmt: skip
        record.verdict = "fail"
        record.notes = ["stages[0]: distillation brought 1.2 points"]
        record.warnings = ["stages[1]: it made the file to deploy larger"]
        record.origin = Origin(
            file="my chain.yaml", overrides=["stages.0.epochs=2", "name=a b"], strategy="small + fast"
        )
        record.test_uses = 7
        return record

    return make


@pytest.fixture
def chained() -> Record:
    """A run made by hand: stages that take and add bytes and accuracy, one that packs, and one that only measures."""
    shares = [
        *(("distill.logits", 260_000, 0.991), ("prune.channels", 171_000, 0.984), ("quantize.aware", 171_000, 0.987)),
        *(("export.onnx", 173_000, 0.987), ("quantize.pack", 61_000, 0.986), ("benchmark.latency", 61_000, 0.986)),
    ]
    stages = [
        stage(i, name, size_bytes=size, compression_ratio=999_900 / size, score=0.95 * kept, retention=estimate(kept),
              retention_before=estimate(kept), changed=name != "benchmark.latency")
        for i, (name, size, kept) in enumerate(shares)
    ]  # fmt: skip
    stages[4].reports["packing"] = packing()
    return hand_made(*stages, baseline=model(size_bytes=999_900, score=0.95))


def timing(ratio: float) -> Timing:
    return Timing(runtime="onnxruntime", threads=1, batch=1, value=ratio, low=ratio * 0.95, high=ratio * 1.06)


def strategy(name: str, size: float, kept: float, ratio: float, **changes: Any) -> StrategyRecord:
    given: dict[str, Any] = {
        "runs": [f"20260101-{name.replace(' ', '-')}"],
        "size_bytes": size,
        "payload_bytes": size * 0.9,
        "params": size / 4,
        "macs": size * 20,
        "compression_ratio": 900_000 / size,
        "score": Spread(mean=0.99 * kept, deviation=0.002, count=3),
        "retention": estimate(kept - 0.004, 0.012),
        "validation_score": Spread(mean=0.985 * kept),
        "validation_retention": estimate(kept, 0.009),
        "latency": [
            Timing(runtime="onnxruntime", threads=1, batch=1, value=ratio, low=ratio * 0.95, high=ratio * 1.06)
        ],
        "seconds": 30 + size / 10_000,
        "verdicts": ["pass", "pass", "inconclusive"],
    }
    return StrategyRecord(name=name, **{**given, **changes})


@pytest.fixture
def comparison(tmp_path: Path) -> Callable[..., ComparisonRecord]:
    """comparison(**changes): baseline and five strategies, of which one failed in a seed and one in all."""

    def make(**changes: Any) -> ComparisonRecord:
        folder = tmp_path / "runs" / "20260101-compare"
        folder.mkdir(parents=True, exist_ok=True)
        lost = Failure(where="stages[0] (prune.channels)", message="no channel is left", exit_code=3)
        unknown: dict[str, Any] = {"validation_retention": None, "retention": None}
        strategies = [
            strategy("baseline", 900_000, 1.0, 1.0, **unknown, verdicts=[], on_front=True),
            strategy("prune", 320_000, 0.991, 0.62, claim="2 to 4 times smaller", verdicts=["fail"]),
            strategy("quantize", 240_000, 0.998, 0.55, claim="4 times smaller", on_front=True, runtimes=runtimes(2)),
            strategy("distill", 58_000, 0.989, 0.2, claim="10 times smaller", on_front=True, failures={"2": lost}),
            strategy("distill + quantize", 17_000, 0.985, 0.12, on_front=True, chosen=True, runtimes=runtimes(1)),
            StrategyRecord(name="distill + prune + quantize", failures={"0": lost}),
        ]
        pair = PairTest(first="prune", second="distill", difference=estimate(0.002), p=0.4, p_adjusted=0.8,
                        distinguishable=False)  # fmt: skip
        clear = PairTest(first="quantize", second="distill + quantize", difference=estimate(0.02), p=1e-4,
                         p_adjusted=4e-4, distinguishable=True)  # fmt: skip
        given: dict[str, Any] = {
            "comparison": "20260101-compare",
            "folder": str(folder),
            "started": "2026-01-01T10:00:00+00:00",
            "origins": ["configs/digits/strategies.yaml"],
            "data": {"test": {"examples": 449, "digest": "c3b67385df6bbbc7452d46a8f98347fa"}},
            "environment": {"python": "3.11.7", "git_commit": "0" * 40, "git_dirty": False, "versions": {"torch": "2"}},
            "seeds": [0, 1, 2],
            "axes": ["size", "retention", "latency"],
            "strategies": strategies,
            "tests": [pair, clear],
            "indistinguishable": [("prune", "distill")],
            "choice": "distill + quantize",
            "chosen": chosen("distill + quantize"),
            "choice_reason": "smallest of the 4 strategies that keep at least 0.97 on validation",
            "test_samples": 449,
            "validation_samples": 180,
            "test_uses": 12,
            "warnings": ["distill + prune + quantize failed in all seeds"],
        }
        made = tmp_path / "runs" / "20260101-quantize"
        made.mkdir(exist_ok=True)
        (made / "report.html").write_text("<!doctype html><title>run</title>")
        return ComparisonRecord(**{**given, **changes})

    return make
