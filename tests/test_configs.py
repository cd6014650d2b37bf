"""Every shipped config is loaded, chain-checked and run small; the default one also in full, as a newcomer would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import build
from pipeline.config import load_config
from pipeline.record import Record
from pipeline.runner import run

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*/*.yaml"))
SMALL = {"epochs": 1, "steps": 1, "rounds": 2, "iterations": 20, "beams": 2}


def smaller(config: Path) -> list[str]:
    """Overrides that cut every stage to a moment's work."""
    loaded, _ = load_config(config)
    found = []
    for key in ("baseline", "stages"):
        for i, (_, stage) in enumerate(getattr(build(loaded), key)):
            parts: dict[str, Any] = {"": stage, "recovery.": getattr(stage, "recovery", None)}
            for prefix, part in parts.items():
                known = set(type(part).model_fields) if part else set()
                found += [f"{key}.{i}.{prefix}{name}={value}" for name, value in SMALL.items() if name in known]
    return found


def test_there_are_configs() -> None:
    assert ROOT / "configs" / "digits" / "compress.yaml" in CONFIGS


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_shipped_config_runs_small(config: Path, tmp_path: Path) -> None:
    record = run(config, overrides=smaller(config), runs=tmp_path, track=False)
    assert [stage.name for stage in record.stages] == [entry["use"] for entry in record.config["stages"]]  # type: ignore[union-attr, call-overload, index]
    assert record.verdict in ("pass", "fail", "inconclusive")
    assert (Path(record.folder) / record.stages[-1].file).is_file()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_launch_command_stands_at_the_top_of_a_config(config: Path) -> None:
    assert config.read_text().startswith(f"# shrink run {config.relative_to(ROOT)}\n")


@pytest.mark.slow
def test_the_default_config_keeps_what_the_readme_promises(tmp_path: Path) -> None:
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
    assert record.baseline is not None
    assert record.baseline.params <= 300_000
    last = record.stages[-1]
    assert last.compression_ratio >= 60
    assert last.retention is not None
    assert last.retention.value >= 0.98
    assert last.latency[0]["ratio"]["verdict"] == "faster"  # type: ignore[index, call-overload]
    assert record.verdict == "pass"

    import mlflow
    import numpy as np

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shrinkline")
    runs = client.search_runs([experiment.experiment_id])
    children = {r.info.run_name: r for r in runs if "mlflow.parentRunId" in r.data.tags}
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert set(children) == {"baseline", *(f"{s.position}-{s.name}" for s in record.stages)}
    trajectory = [point.value for point in client.get_metric_history(parent.info.run_id, "size_bytes")]
    assert trajectory == [record.baseline.size_bytes, *(s.size_bytes for s in record.stages)]
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (logged,) = client.search_logged_models([experiment.experiment_id])
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    outputs = loaded.predict({"input": np.zeros((3, 1, 8, 8), np.float32)})
    assert outputs["output"].shape == (3, 10)
