"""What the store costs and what it saves, on the default config.

    python benchmarks/store.py [--rounds 3]

Prints three figures: the time of the runner with the store beside the same stages called by hand in one process
(imports excluded, a warm database), the time of a whole `shrink run` of which every result is stored, and what four
strategies save by sharing their first stages.
"""

import argparse
import json
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.base.devices import set_seed
from pipeline.base.signals import Interrupts
from pipeline.build.build import build
from pipeline.build.config import PipelineConfig
from pipeline.build.source import load_config
from pipeline.deploy import deploy
from pipeline.measure.accuracy import evaluate_task
from pipeline.model import TorchModel
from pipeline.run.measuring import DeployedFiles
from pipeline.run.result import Result, StageRun
from pipeline.runner import run

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "digits" / "compress.yaml"
QUIET = Console(file=open("/dev/null", "w"), stderr=False)  # noqa: SIM115  # for the whole run
SHARED = 2  # first stages that the strategies have in common


def by_hand(folder: Path) -> float:
    """Seconds of the stages and the evaluations alone: no store, no journal, no tracking, nothing saved."""
    config, source = load_config(CONFIG)
    set_seed(config.seed)
    built = build(config, source)
    files, baseline = DeployedFiles(), None
    began = time.perf_counter()
    model = built.model
    for i, (_, stage) in enumerate((*built.baseline, *built.stages)):
        if i == len(built.baseline):
            baseline = model
        work = folder / str(i)
        work.mkdir()
        set_seed(config.seed)
        made = stage.run(
            model, StageRun("", Result(model, "", folder), work).context(built, baseline, files, Interrupts(), QUIET)
        )
        if made is not model and i >= len(built.baseline) - 1:
            if isinstance(made, TorchModel):
                deploy(made, work / "deployed.onnx")
            evaluate_task(made, built.task, built.task.test, lambda steps: None)
        model = made
    return time.perf_counter() - began


def with_the_runner(runs: Path) -> float:
    """Seconds of a run that finds nothing stored, without its imports."""
    shutil.rmtree(runs / "store", ignore_errors=True)
    began = time.perf_counter()
    run(CONFIG, runs=runs, console=QUIET)
    return time.perf_counter() - began


def cached(runs: Path) -> float:
    """Seconds of a whole process that finds everything stored."""
    command = [sys.executable, "-m", "pipeline", "run", str(CONFIG), "--runs", str(runs)]
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def strategies() -> list[PipelineConfig]:
    """Four chains with the same first stages."""
    config, _ = load_config(CONFIG)
    ends: list[list[dict[str, Any]]] = [
        [{"use": "export.onnx"}],
        [{"use": "export.onnx"}, {"use": "quantize.static", "reduce_range": True}],
        [{"use": "export.onnx"}, {"use": "quantize.dynamic", "operators": ["Conv", "Gemm"]}],
        [{"use": "export.onnx"}, {"use": "quantize.static", "reduce_range": True, "calibration": "entropy"}],
    ]
    first = [stage.model_dump() for stage in config.stages[:SHARED]]
    made = []
    for i, end in enumerate(ends):
        data = {**config.model_dump(), "name": f"strategy-{i}", "stages": [*first, *end], "budget": {}}
        folder = {"folder": config.folder}
        made.append(PipelineConfig.model_validate({**data, **folder}, context=folder))
    return made


def shared(runs: Path) -> tuple[float, float]:
    """Seconds of four strategies, each with a store of its own, and with one store."""
    times = []
    for one in (False, True):
        began = time.perf_counter()
        for i, config in enumerate(strategies()):
            run(config, runs=runs / ("one" if one else f"own-{i}"), track=False, console=QUIET)
        times.append(time.perf_counter() - began)
    return times[0], times[1]


def main() -> None:
    """Print the figures as JSON."""
    logging.getLogger("shrinkline").addHandler(logging.NullHandler())
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        with_the_runner(runs)  # makes the database and warms everything up
        pairs = []
        for i in range(rounds):
            hand = Path(folder) / f"hand-{i}"
            hand.mkdir()
            pairs.append((by_hand(hand), with_the_runner(runs)))
            print(f"round {i}: by hand and with the runner {pairs[-1]} s", file=sys.stderr)
        ratios = [ours / hand for hand, ours in pairs]
        own, one = shared(Path(folder))
        print(f"four strategies: {own} s, sharing {one} s", file=sys.stderr)
        figures = {
            "by_hand_seconds": [round(hand, 2) for hand, _ in pairs],
            "runner_seconds": [round(ours, 2) for _, ours in pairs],
            "overhead_median": round(statistics.median(ratios) - 1, 4),
            "cached_run_seconds": round(min(cached(runs) for _ in range(rounds)), 2),
            "four_strategies_own_stores_seconds": round(own, 1),
            "four_strategies_one_store_seconds": round(one, 1),
        }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
