"""A comparison in MLflow: a parent, a child a strategy with the same figures, the runs below them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.compare.compare import compare, compare_runs
from pipeline.report.mlflow.pages import short_name
from pipeline.runner import run, sync_run
from tests.aliases import Make
from tests.forked import Child


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """All runs of the database, of which a comparison's parent comes without a parent."""
    uri = f"sqlite:///{tmp_path / 'tracked.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def search() -> list[Any]:
        client = MlflowClient(uri)  # another test may have set the process's own
        experiment = client.get_experiment_by_name("shrinkline")
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    return search


def below(runs: list[Any], parent: Any) -> dict[str, Any]:
    name = "mlflow.parentRunId"
    return {run.info.run_name: run for run in runs if run.data.tags.get(name) == (parent and parent.info.run_id)}


def test_strategies_are_children_with_the_same_figures(
    strategies: Make, tmp_path: Path, tracked: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.compare.children.subprocess", SimpleNamespace(Popen=Child, PIPE=None))
    record = compare([strategies(timed=False)], runs=tmp_path / "runs")
    runs = tracked()
    (parent,) = below(runs, None).values()
    assert (parent.info.run_name, parent.info.status) == (short_name(record.comparison), "FINISHED")
    children = below(runs, parent)
    assert set(children) == {"baseline", "noisy", "close"}
    for strategy in record.strategies:
        figures = children[strategy.name].data.metrics
        assert figures["size_bytes"] == strategy.size_bytes
        assert figures["score"] == pytest.approx(strategy.score.mean if strategy.score else None)
    # What MLflow's compare page lines up has the same names in every strategy.
    assert set(children["noisy"].data.metrics) == set(children["close"].data.metrics)
    assert set(below(runs, children["close"])) == set(map(short_name, record.strategies[2].runs))
    assert {
        file.path for file in MlflowClient(f"sqlite:///{tmp_path / 'tracked.db'}").list_artifacts(parent.info.run_id)
    } == {"comparison.json", "report.html", "summary.md"}


def test_earlier_runs_stay_where_they_are(strategies: Make, tmp_path: Path, tracked: Callable[[], list[Any]]) -> None:
    file = strategies(timed=False)
    made = [run(file, strategy=name, runs=tmp_path / "runs") for name in ("noisy", "close")]
    record = compare_runs([one.folder for one in made], runs=tmp_path / "runs")
    top = below(tracked(), None)
    assert set(top) == set(map(short_name, [record.comparison, *(one.run for one in made)]))
    assert set(below(tracked(), top[short_name(record.comparison)])) == {"baseline", "noisy", "close"}


@pytest.mark.slow
def test_what_mlflow_missed_is_logged_later(
    strategies: Make, tmp_path: Path, tracked: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "tracked.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:////{tmp_path}/missing/tracked.db")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "missing").write_text("not a folder")
    record = compare([strategies(timed=False)], runs=tmp_path / "runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{there}")
    assert sync_run(record.folder)
    assert not sync_run(record.folder)
    (parent,) = below(tracked(), None).values()
    assert set(below(tracked(), parent)) == {"baseline", "noisy", "close"}
