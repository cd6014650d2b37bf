"""What an earlier version saved is read: a model, a run folder and the store beside it, all made by 0.1.0."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.cli.gate import gate
from pipeline.cli.report import report
from pipeline.model import TorchModel
from pipeline.records.record import Record
from pipeline.run.store import gc
from pipeline.run.store.store import Store
from pipeline.runner import resume

DATA = Path(__file__).parent / "data"
MADE_IN = "/home/user/project"
"""Where the run was made, as its files say."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's folder with `runs` in it, whose files say that they were made where they are now."""
    folder = tmp_path_factory.mktemp("project")
    with tarfile.open(DATA / "run_of_0_1_0.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    for file in (*folder.glob("runs/*/record.json"), *folder.glob("runs/*/journal.jsonl")):
        file.write_text(file.read_text().replace(MADE_IN, str(folder)))
    return folder


@pytest.fixture
def run(project: Path) -> Path:
    (record,) = project.glob("runs/*/record.json")
    return record.parent


def test_a_model_with_every_edit_gives_what_it_gave() -> None:
    folder = DATA / "saved_by_0_1_0"
    model = TorchModel.load(folder / "model", folder)
    assert [edit.use.rpartition(":")[2] for edit in model.edits] == ["keep_layers", "reshape", "without_tokens"]
    values = load_file(folder / "predictions.safetensors")
    inputs = {name.removeprefix("inputs."): value for name, value in values.items() if name.startswith("inputs.")}
    torch.testing.assert_close(
        model.predict(inputs)["output"], values["outputs.output"]
    )  # another CPU rounds otherwise


def test_a_model_that_was_saved_before_is_saved_by_todays_names(tmp_path: Path) -> None:
    folder = DATA / "saved_by_0_1_0"
    model = TorchModel.load(folder / "model", folder)
    model.save(tmp_path)
    uses = [edit["use"] for edit in json.loads((tmp_path / "model.json").read_text())["edits"]]
    assert uses == [edit.use for edit in model.edits]
    assert not {"pipeline.translated:without_tokens", "stages.layers:keep_layers"} & {*uses}
    again = TorchModel.load(tmp_path, folder)
    assert torch.equal(again.predict(model.example)["output"], model.predict(model.example)["output"])


def test_its_report_is_built_again(run: Path) -> None:
    assert report([run]) == 0
    assert "quantize.static" in (run / "report.html").read_text()


def test_it_is_judged_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(run) == 0
    assert "size" in capsys.readouterr().out


def test_its_store_is_verified_and_cleaned(project: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(project / "runs", runs)
    store = Store(runs / "store")
    assert len(store.entries()) == 9
    assert not gc.damaged(store)
    rule: dict[str, Any] = {"older_than_days": None, "keep_bytes": None, "unreachable": True}
    assert not gc.garbage(store, runs, **rule)
    (record,) = runs.glob("*/record.json")
    shutil.rmtree(record.parent)
    for entry in gc.garbage(store, runs, **rule):
        store.remove(entry)
    assert not store.entries()


def test_it_is_resumed_to_the_same_weights(run: Path) -> None:
    before = Record.load(run)
    predictions = [load_file(run / stage.predictions)["predictions"] for stage in before.stages[:2]]
    record = resume(run, track=False)
    assert record.verdict == before.verdict == "pass"
    for stage, earlier in zip(record.stages[:2], predictions, strict=True):
        # To the bit on a CPU like the one that it began on; another one rounds otherwise.
        torch.testing.assert_close(load_file(run / stage.predictions)["predictions"], earlier, rtol=1e-3, atol=1e-4)
