"""MLflow as it is, on SQLite: what is logged, that the model comes back, and that an outage costs one warning."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.base.estimate import Estimate
from pipeline.base.hardware import describe
from pipeline.errors import StageError
from pipeline.records.figures import curves, flatten, metrics
from pipeline.records.record import Failure, Record
from pipeline.report.mlflow.run import open_tracking
from pipeline.runner import run
from tests import records
from tests.aliases import Make
from tests.forked import PATIENCE, start
from tests.users import MINE_ALONE, stage_file


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all: making it takes seconds. Its path has a space, as many have."""
    return tmp_path_factory.mktemp("tracking") / "my runs"


@pytest.fixture
def client(runs: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")


@pytest.fixture
def record(kept: dict[str, Record], project: Make, runs: Path) -> Record:
    """A tracked and registered run of the whole chain."""
    if not kept:
        kept["record"] = run(project(), runs=runs, register="tiny")
    return kept["record"]


@pytest.fixture
def parent(record: Record, client: MlflowClient) -> Run:
    return found(client, record)


@pytest.fixture
def children(parent: Run, client: MlflowClient) -> dict[str, Run]:
    nested = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", order_by=["start_time"]
    )
    return {child.info.run_name: child for child in nested}


def found(client: MlflowClient, record: Record, experiment: str = "shrinkline") -> Run:
    entry = client.get_experiment_by_name(experiment)
    (only,) = client.search_runs([entry.experiment_id], f"tags.shrink_uid = '{record.run}'")
    return only


def bare(folder: Path, name: str = "bare") -> Record:
    """A record before any work."""
    folder.mkdir(parents=True, exist_ok=True)
    return records.record(run=name, folder=str(folder), data={"test": {"digest": "d"}}, environment=describe(folder))


def test_a_chain_is_a_parent_with_children_for_baseline_and_stages(parent: Run, children: dict[str, Run]) -> None:
    assert list(children) == ["baseline", "0-distill.logits", "1-export.onnx"]
    assert {r.info.status for r in (parent, *children.values())} == {"FINISHED"}


def test_settings_are_params(record: Record, parent: Run, children: dict[str, Run]) -> None:
    logged = children["0-distill.logits"].data.params
    assert logged == {key: str(value) for key, value in flatten(record.stages[0].settings).items()}
    assert (logged["rest_weight"], logged["student.use"], logged["student.arguments.width"]) == (
        "8.0",
        "models.py:TinyNet",
        "8",
    )
    assert parent.data.params["stages.0.rest_weight"] == "8.0"
    assert parent.data.params["baseline.0.epochs"] == "2"


def test_metrics_stand_on_the_child_and_on_the_parent_by_step(
    record: Record, parent: Run, children: dict[str, Run], client: MlflowClient
) -> None:
    models = [record.baseline, *record.stages]
    for name in ("size_bytes", "score", "macs", "seconds"):
        expected = [getattr(model, name) for model in models]
        history = client.get_metric_history(parent.info.run_id, name)
        assert [(point.step, point.value) for point in history] == list(enumerate(expected))
        assert [child.data.metrics[name] for child in children.values()] == expected
    kept = record.stages[1].retention
    logged = children["1-export.onnx"].data.metrics
    assert [logged[k] for k in ("retention", "retention_low", "retention_high")] == [kept.value, kept.low, kept.high]


def test_the_training_curve_is_on_the_child(record: Record, children: dict[str, Run], client: MlflowClient) -> None:
    history: Any = record.stages[0].reports["training"]
    points = client.get_metric_history(children["0-distill.logits"].info.run_id, "training.loss")
    assert [(point.step, point.value) for point in points] == [(e["epoch"], e["loss"]) for e in history]


def test_digests_and_the_commit_are_tags(record: Record, parent: Run, children: dict[str, Run]) -> None:
    assert parent.data.tags["data.digest"] == record.data["test"]["digest"]  # type: ignore[index, call-overload]
    assert parent.data.tags["git.commit"] == str(record.environment["git_commit"])
    assert parent.data.tags["verdict"] == "none"  # there is no budget
    assert [children[f"{s.position}-{s.name}"].data.tags["digest"] for s in record.stages] == [
        s.digest for s in record.stages
    ]


def test_the_record_the_config_and_the_models_are_artifacts(
    record: Record, parent: Run, children: dict[str, Run], client: MlflowClient, tmp_path: Path
) -> None:
    assert {entry.path for entry in client.list_artifacts(parent.info.run_id)} >= {"record.json", "config.yaml"}
    path = client.download_artifacts(parent.info.run_id, "record.json", str(tmp_path))
    assert Record.model_validate_json(Path(path).read_text()) == record
    for stage in record.stages:
        run_id = children[f"{stage.position}-{stage.name}"].info.run_id
        logged = Path(client.download_artifacts(run_id, f"deployed/{Path(stage.file).name}", str(tmp_path)))
        assert logged.read_bytes() == (Path(record.folder) / stage.file).read_bytes()


@pytest.fixture
def tracking_uri(runs: Path) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{runs / 'mlflow.db'}")
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.parametrize("place", ["runs:/{}/model", "models:/tiny/1"])
def test_the_last_model_comes_back_and_predicts(record: Record, parent: Run, tracking_uri: None, place: str) -> None:
    inputs = {"input": np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)}
    (expected,) = onnxruntime.InferenceSession(Path(record.folder) / record.final.file).run(None, inputs)
    loaded = mlflow.pyfunc.load_model(place.format(parent.info.run_id))
    np.testing.assert_array_equal(loaded.predict(inputs)["output"], expected)


def test_a_registered_model_belongs_to_its_run(parent: Run, client: MlflowClient) -> None:
    (version,) = client.search_model_versions("name = 'tiny'")
    assert version.run_id == parent.info.run_id


def test_the_callers_tracking_uri_is_left_as_it_was(record: Record, runs: Path) -> None:
    assert str(runs) not in mlflow.get_tracking_uri()
    assert mlflow.active_run() is None


def test_mlflows_own_variables_say_where_and_under_which_experiment(
    record: Record, project: Make, runs: Path, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{runs / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    made = run(project(MINE_ALONE, **{"mine.py": stage_file()}), runs=tmp_path / "runs")
    assert found(client, made, "elsewhere").info.status == "FINISHED"
    assert not (tmp_path / "runs" / "mlflow.db").exists()


def test_a_failed_run_keeps_its_baseline(record: Record, project: Make, runs: Path, client: MlflowClient) -> None:
    before = set(runs.iterdir())
    with pytest.raises(StageError, match="no luck"):
        run(project(MINE_ALONE, **{"mine.py": stage_file("raise ValueError('no luck')")}), runs=runs)
    (folder,) = set(runs.iterdir()) - before
    failed = found(client, Record.load(folder))
    assert failed.info.status == "FAILED"
    assert "size_bytes" in failed.data.metrics


@pytest.mark.parametrize(("raised", "failure", "status"), [
    (None, None, "FINISHED"),
    (StageError("no luck"), Failure(where="", message="no luck", exit_code=3), "FAILED"),
    (KeyboardInterrupt(), None, "KILLED"),
], ids=["done", "failed", "interrupted"])  # fmt: skip
def test_the_status_in_mlflow_is_how_the_run_ended(
    record: Record, runs: Path, client: MlflowClient, tmp_path: Path, raised: Any, failure: Any, status: str
) -> None:
    made = bare(tmp_path / "run", f"ends-{status}")
    expected = pytest.raises(type(raised)) if raised else nullcontext()
    with expected, open_tracking(made, runs):
        made.failure = failure
        if raised:
            raise raised
    assert found(client, made).info.status == status


def test_more_and_longer_values_are_logged(record: Record, runs: Path, client: MlflowClient, tmp_path: Path) -> None:
    made = bare(tmp_path / "run", "large")
    made.config = {f"key{i}": i for i in range(250)} | {"long": "x" * 10_000}
    with open_tracking(made, runs) as tracking:
        assert not tracking.to.problem
    logged = found(client, made).data.params
    assert (len(logged), logged["key249"], logged["long"]) == (251, "249", "x" * 6000)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "postgresql://nobody@127.0.0.1:9/none", "nonsense://", "file:///proc/none"]
)
def test_a_tracking_server_that_is_down_costs_one_warning_and_not_the_run(
    project: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str], uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    made = run(project(MINE_ALONE, **{"mine.py": stage_file()}), runs=tmp_path / "runs")
    assert (len(made.stages), made.failure) == (1, None)
    (warning,) = [text for text in said if "MLflow" in text]
    assert warning.startswith("MLflow tracking stopped: ")
    assert warning.endswith(f"; the run folder has everything; later: shrink sync {made.folder}")


def open_and_tell(folder: Path, name: str) -> None:
    with open_tracking(bare(folder / "run", name), folder / "runs") as tracking:
        sys.exit(bool(tracking.to.problem))


@pytest.mark.anew
def test_two_processes_that_make_the_database_at_once_both_succeed(tmp_path: Path) -> None:
    children = [start(open_and_tell, tmp_path, name) for name in ("one", "two")]
    for child in children:
        child.join(PATIENCE)
    assert [child.exitcode for child in children] == [0, 0]
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    assert all(found(client, bare(tmp_path / "run", name)) for name in ("one", "two"))


def test_metrics_are_all_numbers_with_their_intervals_and_nothing_else() -> None:
    latency = {"runtime": "onnxruntime", "threads": 1, "batch": 2, "p50_ms": 0.5, "p99_ms": None}
    latency |= {"ratio": {"value": 0.7}}
    f1, kept = Estimate(value=0.5, low=0.4, high=0.6), Estimate(value=0.9, low=0.8, high=1.0)
    logged = metrics(records.stage(changed=True, cached=False, latency=[latency], retention=kept, metrics={"f1": f1}))
    assert [logged[f"retention{end}"] for end in ("", "_low", "_high")] == [0.9, 0.8, 1.0]
    assert (logged["metric.f1"], logged["metric.f1_low"]) == (0.5, 0.4)
    assert logged["latency.onnxruntime.threads1.batch2.p50_ms"] == 0.5
    assert logged["latency.onnxruntime.threads1.batch2.ratio.value"] == 0.7
    assert not {"cached", "changed", "form", "drop", "latency.onnxruntime.threads1.batch2.p99_ms"} & set(logged)
    assert all(isinstance(value, int | float) for value in logged.values())


@pytest.mark.parametrize(("report", "expected"), [
    ([{"epoch": 0, "loss": 2}, {"epoch": 1, "loss": 1}], {"r.loss": [2.0, 1.0]}),
    ([{"epoch": 0, "loss": 2, "note": "a"}, {"epoch": 1}], {}),  # a curve with holes is no curve
    ([{"epoch": 0, "loss": 2}, {"epoch": 1, "loss": None}], {}),
    ([{"step": 0, "loss": 2}], {}),
    ([], {}),
    ({"loss": 2}, {}),
    ("text", {}),
])  # fmt: skip
def test_a_report_is_a_curve_where_each_epoch_has_the_number(report: Any, expected: dict[str, list[float]]) -> None:
    assert curves(records.model(reports={"r": report})) == expected


@pytest.mark.parametrize(("value", "expected"), [
    ({"a": 1, "b": {"c": 2, "d": {"e": 3}}}, {"a": 1, "b.c": 2, "b.d.e": 3}),
    ({"a": [{"b": 1}, {"b": 2}]}, {"a.0.b": 1, "a.1.b": 2}),
    ({"a": [1, 2], "b": None}, {"a": "[1, 2]", "b": None}),
    ({"a": {}, "b": []}, {"a": "{}", "b": "[]"}),
    ({}, {}),
])  # fmt: skip
def test_flatten_gives_one_level_with_dotted_keys(value: Any, expected: dict[str, Any]) -> None:
    assert flatten(value) == expected


def test_a_latency_report_of_a_users_own_shape_does_not_end_the_run() -> None:
    assert 0.5 in metrics(records.stage(latency=[{"p50_ms": 0.5}])).values()


def test_a_database_that_is_none_costs_one_warning(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database " * 500)
    with open_tracking(bare(tmp_path / "run"), tmp_path) as tracking:
        assert tracking.to.problem
    assert len(said) == 1
    assert "file is not a database" in said[0]


def test_nothing_is_reported_to_the_makers_of_mlflow(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from pipeline.report.mlflow.connection import Connection
to = Connection(Path(sys.argv[1]), "later")
to.tolerant(to.open)
from mlflow.telemetry.client import get_telemetry_client
print([to.problem, get_telemetry_client()])
"""
    there = ("CI", "PYTEST", "GITHUB", "MLFLOW", "DO_NOT_TRACK")  # with these MLflow is silent by itself
    environment = {name: value for name, value in os.environ.items() if not name.startswith(there)}
    ended = subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True)
    assert ended.stdout.strip() == "['', None]", ended.stderr
