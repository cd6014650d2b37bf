"""Every shipped config is loaded, chain-checked and run small; the default one also in full, as a newcomer would."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.build.build import build
from pipeline.build.source import Source, load_config
from pipeline.records.record import Record
from pipeline.runner import run
from tests.config_data import WRITERS

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*/*.yaml"))
STRATEGIES = {config: names for config in CONFIGS if (names := Source(config).strategies())}
QUICK = ROOT / "configs" / "digits" / "compress.yaml"


@cache
def uses(config: Path, strategy: str | None) -> set[str]:
    """The stages of a chain."""
    return {stage.use for stage in load_config(config, strategy=strategy)[0].stages}


def mark(config: Path, strategy: str | None) -> pytest.MarkDecorator:
    """Of which run a chain is: of the matrix where another strategy of its file has all of its stages and more."""
    others = (uses(config, other) for other in STRATEGIES.get(config, []))
    is_part = any(uses(config, strategy) < other for other in others)
    return pytest.mark.matrix if is_part else pytest.mark.slow


CHAINS = [
    pytest.param(config, name, marks=[] if config == QUICK else [mark(config, name)])
    for config in CONFIGS
    for name in STRATEGIES.get(config, [None])
]
SMALL = {"epochs": 1, "steps": 1, "rounds": 2, "iterations": 20, "beams": 2, "views": 1}
OWN = {
    "sst2/prune.yaml": ["stages.0.layers=1", "stages.0.macs=0.6"],  # its encoder in tests/config_data.py has two blocks
    "cifar10/prune.yaml": ["stages.0.examples=8", "stages.1.examples=8"],  # 27 blocks are compared on them
    "multi30k/sequence.yaml": ["stages.0.student.layers=1"],  # exporting a layer takes seconds
    "multi30k/teacher.yaml": ["model.layers=1"],
    "translation/sequence.yaml": ["model.layers=2", "limit=64"],
}
"""Overrides by config."""


def title(value: Any) -> str:
    return f"{value.parent.name}/{value.name}" if isinstance(value, Path) else str(value)


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """local(TASK): overrides that read small local data in place of the hub's, which is written once."""

    @cache
    def written(task: str) -> list[str]:
        return WRITERS[task](tmp_path_factory.mktemp(task)) if task in WRITERS else []

    return written


@pytest.fixture
def data(request: pytest.FixtureRequest, local: Callable[[str], list[str]]) -> list[str]:
    """The overrides for the config of a test; of a strategy that begins with a published network its weights too."""
    tested = request.node.callspec.params
    overrides = local(tested["config"].parent.name)
    if not str(tested.get("strategy")).startswith("published"):
        return overrides
    weights = Path(overrides[-1].removeprefix("model.weights="))
    return [*overrides, f"stages.0.weights={weights.with_name('resnet20.th')}"]


def smaller(config: Path, strategy: str | None, data: list[str]) -> list[str]:
    """Overrides that cut every stage to a moment's work."""
    loaded, _ = load_config(config, data, strategy)
    found = [*data, f"limit={64 if config.parent.name in WRITERS else 512}"]
    for key in ("baseline", "stages"):
        for i, (_, stage) in enumerate(getattr(build(loaded), key)):
            parts: dict[str, Any] = {"": stage, "recovery.": getattr(stage, "recovery", None)}
            for prefix, part in parts.items():
                known = set(type(part).model_fields) if part else set()
                found += [f"{key}.{i}.{prefix}{name}={value}" for name, value in SMALL.items() if name in known]
    found += OWN.get(title(config), [])
    return found


def test_there_are_configs() -> None:
    assert ROOT / "configs" / "digits" / "compress.yaml" in CONFIGS


@pytest.mark.parametrize(("config", "strategy"), CHAINS, ids=title)
def test_a_shipped_config_runs_small(config: Path, strategy: str | None, data: list[str], tmp_path: Path) -> None:
    overrides = smaller(config, strategy, data)
    record = run(config, overrides=overrides, strategy=strategy, runs=tmp_path, track=False)
    assert [stage.name for stage in record.stages] == [entry["use"] for entry in record.config["stages"]]  # type: ignore[union-attr, call-overload, index]
    assert (record.verdict in ("pass", "fail", "inconclusive")) if strategy is None else record.verdict is None
    assert (Path(record.folder) / record.stages[-1].file).is_file()


@pytest.mark.parametrize("config", CONFIGS, ids=title)
def test_the_launch_command_stands_at_the_top_of_a_config(config: Path) -> None:
    command = "compare" if config in STRATEGIES else "run"
    first = config.read_text().partition("\n")[0]
    assert re.fullmatch(rf"# shrink {command} {re.escape(str(config.relative_to(ROOT)))}( --processes \d+)?", first)


@pytest.mark.parametrize("config", STRATEGIES, ids=title)
def test_what_is_promised_is_said_of_a_strategy_that_is_there(config: Path) -> None:
    loaded, _ = load_config(config, strategy=STRATEGIES[config][0])
    assert set(loaded.compare.claims) <= set(STRATEGIES[config])


@pytest.mark.slow
def test_the_default_config_keeps_what_the_readme_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "run",
        "configs/digits/compress.yaml",
        "--runs",
        str(tmp_path),
        "--json",
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = Record.model_validate(json.loads(done.stdout))
    assert record.baseline.params <= 300_000
    last = record.stages[-1]
    assert last.compression_ratio >= 200
    assert last.retention.value >= 0.98
    assert last.latency[0]["ratio"]["verdict"] == "faster"  # type: ignore[index, call-overload]
    assert record.verdict == "pass"

    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shrinkline")
    runs = client.search_runs([experiment.experiment_id])
    children = {r.info.run_name: r for r in runs if "mlflow.parentRunId" in r.data.tags}
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert set(children) == {"baseline", *(f"{s.position}-{s.name}" for s in record.stages)}
    trajectory = [point.value for point in client.get_metric_history(parent.info.run_id, "size_bytes")]
    assert trajectory == [record.baseline.size_bytes, *(s.size_bytes for s in record.stages)]
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which the next line sets, and which is put back
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (logged,) = client.search_logged_models([experiment.experiment_id])
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    mlflow.set_tracking_uri(before)
    outputs = loaded.predict({"input": np.zeros((3, 1, 8, 8), np.float32)})
    assert outputs["output"].shape == (3, 10)
