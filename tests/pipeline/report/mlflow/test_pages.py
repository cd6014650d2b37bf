"""What MLflow shows people of runs: names that differ, what the data is, and in its pages the columns that matter."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.records.record import Failure, Origin, Record
from pipeline.report.mlflow.connection import Connection
from pipeline.report.mlflow.pages import METRICS, NOTE, VIEW_TAG, capped_text, data_name, link, note, short_name
from pipeline.runner import sync_run
from tests import records
from tests.tracked import Database, Server


@pytest.mark.parametrize(("folder", "name"), [
    ("20261130-185159-dist-f55a", "dist-f55a"),
    ("20261130-185159-hint_then_logit-f55a", "hint_then_l…-f55a"),
    ("20261130-185159-my-net-f55a", "my-net-f55a"),
    ("20261130-185159-strategies-compared-f55a", "strategies-f55a"),
    ("best of march", "best of march"),
    ("copy-0001", "copy-0001"),
])  # fmt: skip
def test_a_name_is_short_and_keeps_what_tells_runs_apart(folder: str, name: str) -> None:
    assert short_name(folder) == name


@pytest.mark.parametrize(("task", "folder", "name"), [
    ({"use": "digits"}, "/home/me/configs/digits", "digits"),
    ({"use": "data.py"}, "/home/me/configs/fsdd", "fsdd"),
    ({"use": "huggingface", "arguments": {"data": "sst2", "test": "validation"}}, "/home/me", "sst2"),
    ({"use": "huggingface", "arguments": {"data": "/home/me/reviews.csv"}}, "/home/me", "reviews"),
    ({"use": "my.pytorch_data:task"}, "/home/me", "my.pytorch_data:task"),
    ({"use": "pipeline.build.live.lent:task"}, "", "Net"),
    (None, "", "data"),
])  # fmt: skip
def test_data_is_called_what_its_user_calls_it(task: Any, folder: str, name: str) -> None:
    config = {"name": "Net", **({"task": task} if task else {})}
    assert data_name(records.record(config=config, origin=Origin(file="x.yaml", folder=folder))) == name


def test_a_summary_that_is_too_long_ends_with_a_whole_line(tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("| one |\n| two |\n| three |\n")
    assert capped_text(tmp_path / "summary.md", 18) == "| one |\n| two |"
    assert note(tmp_path, records.record(), 100) == "| one |\n| two |\n| three |\n"
    failure = Failure(where="stages[0]", message="no luck", exit_code=3)
    assert note(tmp_path, records.record(failure=failure), 100) == "Ended in stages[0]: no luck"


def test_an_experiment_is_told_once_and_what_its_user_changes_stays(tmp_path: Path) -> None:
    to = Connection(tmp_path, "shrink sync")
    to.open()
    tags = to.client.get_experiment(to.experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert json.loads(json.loads(tags[VIEW_TAG])["state"])["selectedColumns"][0] == "metrics.`retention`"
    to.client.set_experiment_tag(to.experiment, VIEW_TAG, "of the user")
    to.client.delete_experiment_tag(to.experiment, "mlflow.experimentKind")  # as of an earlier version
    again = Connection(tmp_path, "shrink sync")
    again.open()
    assert to.client.get_experiment(to.experiment).tags == tags | {VIEW_TAG: "of the user"}


def test_a_run_has_its_data_and_its_summary(another: Callable[..., Path], local: Database) -> None:
    folder = another()
    assert sync_run(folder)
    parent = local.state(folder.name)["runs"][0]
    digests = Record.load(folder).split_digests
    splits = ("test", "train", "validation")
    assert sorted((split, digest) for _, digest, split in parent["data"]) == [(s, digests[s][:8]) for s in splits]
    assert dict(parent["tags"])[NOTE].startswith("## ")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("pages"))
    started.start()
    yield started
    started.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mlflows_page_shows_the_metrics_of_training_runs(
    another: Callable[..., Path], server: Server, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    first = another()
    second = another(run="20261130-185159-short-f55a")
    for folder in (first, second):
        assert sync_run(folder)
    experiment = MlflowClient(server.uri).get_experiment_by_name("shrinkline").experiment_id
    assert json.loads((first / "tracking.json").read_text())["experiment"] == experiment
    page = browser.new_context(viewport={"width": 2400, "height": 900}).new_page()
    page.goto(link(server.uri, experiment))
    page.get_by_role("heading", name="Runs").wait_for(timeout=120_000)
    for name in ("short-f55a", *METRICS[:4]):
        page.get_by_text(re.compile(f"^{name}$")).first.wait_for(timeout=60_000)
    cells = page.locator("[role=gridcell][col-id*=retention]").all_inner_texts()
    assert any(text.startswith(str(Record.load(first).final.retention.value)[:6]) for text in cells)  # type: ignore[union-attr]
    assert page.get_by_text("Traces", exact=True).count() <= 1  # of the menu; the page is none of traces
