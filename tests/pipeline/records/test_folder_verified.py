"""What a record names is verified by whoever reads it; records of earlier versions are read with what they have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.compare.compare import compare_runs
from pipeline.errors import ConfigError
from pipeline.gate.expected import of_run
from pipeline.records.folder import load_run, verified
from pipeline.records.record import Record
from pipeline.report.package import package
from pipeline.runner import run, sync_run
from tests.aliases import Make
from tests.users import chain_of

READERS: dict[str, Callable[[Path], Any]] = {
    "compare": lambda folder: compare_runs([folder, folder.parent / "whole"], runs=folder.parent),
    "expect": lambda folder: of_run(load_run(folder)),
    "package": lambda folder: package(folder, folder.parent / "package"),
    "sync": sync_run,
}


@pytest.fixture(scope="module")
def runs(kept: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def folder(quick: Make, kept: dict[str, Any], runs: Path, tmp_path: Path) -> Path:
    """A copy of a run of two torch forms beside another one, made once."""
    if "run" not in kept:
        kept["run"] = run(quick(chain_of("noise.py", baseline="noise.py")), runs=runs, track=False)
    for name in ("run", "whole"):
        shutil.copytree(kept["run"].folder, tmp_path / name)
    return tmp_path / "run"


def test_every_file_that_a_model_names_has_its_digest(folder: Path) -> None:
    record = Record.load(folder)
    for _, model in record.models:
        assert {model.file, model.predictions} == model.digests.keys()
        assert model.file.endswith("deployed.onnx")
        for what in ("folder", "file", "predictions"):
            assert verified(record, model, what) == folder / getattr(model, what)


@pytest.mark.parametrize(("reader", "what"), [
    ("compare", "predictions"), ("expect", "predictions"), ("expect", "file"), ("package", "file"), ("sync", "file"),
    ("sync", "folder"),
])  # fmt: skip
@pytest.mark.parametrize("harm", ["flipped", "gone", "exchanged"])
def test_a_damaged_file_is_refused_by_name(folder: Path, reader: str, what: str, harm: str) -> None:
    record = Record.load(folder)
    file, other = (folder / str(getattr(model, what)) for model in (record.final, record.baseline))
    if what == "folder":
        file, other = file / "weights.safetensors", other / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    if harm != "gone":
        file.write_bytes(content if harm == "flipped" else other.read_bytes())
    if (reader, what, harm) == ("expect", "predictions", "gone"):  # then there are none to expect
        assert of_run(record).scores is None
        return
    with pytest.raises(ConfigError) as caught:
        READERS[reader](folder)
    assert str(file.parent if what == "folder" else file) in str(caught.value)
    assert f"`shrink resume {folder}` puts it back" in str(caught.value)
    assert not (folder.parent / "mlflow.db").exists()


def test_a_record_of_an_earlier_version_is_read_with_the_digests_that_it_has(folder: Path) -> None:
    record = json.loads((folder / "record.json").read_text())
    for model in (record["baseline"], *record["stages"]):
        del model["digests"]
    (folder / "record.json").write_text(json.dumps(record))
    assert of_run(load_run(folder)).scores is not None
    assert package(folder, folder.parent / "package").is_dir()
    (folder / record["stages"][0]["folder"] / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="it is not what was written"):
        verified(Record.load(folder), Record.load(folder).stages[0], "folder")
