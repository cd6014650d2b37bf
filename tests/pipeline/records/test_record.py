"""The record on disk: whole or not at all, found again where it was moved, and with a schema that holds."""

import json
import math
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ValidationError

from pipeline.base.estimate import Estimate
from pipeline.records.comparison import ComparisonRecord
from pipeline.records.parts.models import Flips
from pipeline.records.record import SCHEMA_VERSION, Failure, Record
from tests.records import model, record, stage


@pytest.mark.parametrize("rest", [
    {},
    {"baseline": model()},
    {"failure": Failure(where="stages[0]", message="no luck", exit_code=3)},
    {"verdict": "inconclusive", "warnings": ["one", "two"]},
    {
        "stages": [
            stage(
                settings={"student": {"use": "m.py:N"}},
                retention=Estimate(value=0.9, low=0.8, high=1.0),
                flips=Flips(lost=3, gained=1),
                metrics={"f1": Estimate(value=0.5, low=0.4, high=0.6)},
                reports={"training": [{"epoch": 0, "loss": 1.5}], "note": None},
                latency=[{"runtime": "onnxruntime", "threads": 1, "batch": 1, "ratio": {"value": 0.5}}],
            )
        ]
    },
], ids=["empty", "baseline", "failure", "verdict", "stage"])  # fmt: skip
def test_a_record_comes_back_as_it_was_and_fits_its_schema(tmp_path: Path, rest: dict[str, Any]) -> None:
    made = record(folder=str(tmp_path), **rest)
    made.save()
    assert Record.load(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]  # nothing half written is left beside it
    given = json.loads((tmp_path / "record.json").read_text())
    assert given["schema_version"] == SCHEMA_VERSION
    jsonschema.Draft202012Validator(Record.model_json_schema()).validate(given)


def test_a_record_is_found_where_its_folder_was_moved(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    record(folder=str(tmp_path / "old")).save()
    moved = (tmp_path / "old").rename(tmp_path / "new")
    assert Record.load(moved).folder == str(moved)


def test_saving_that_fails_halfway_leaves_the_record_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = record(folder=str(tmp_path))
    made.save()

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    made.warnings.append("new")
    with pytest.raises(OSError, match="No space"):
        made.save()
    assert Record.load(tmp_path).warnings == []


@pytest.mark.parametrize("change", [
    {"verdict": "maybe"}, {"seed": "zero"}, {"stages": [{}]}, {"failure": {"where": "here"}},
], ids=["verdict", "seed", "stages", "failure"])  # fmt: skip
def test_what_does_not_fit_is_refused_by_the_schema_and_on_loading(tmp_path: Path, change: dict[str, Any]) -> None:
    given = {**record().model_dump(mode="json"), **change}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(Record.model_json_schema()).validate(given)
    (tmp_path / "record.json").write_text(json.dumps(given))
    with pytest.raises(ValidationError):
        Record.load(tmp_path)


def test_the_spine_that_readers_rely_on_is_in_the_schema() -> None:
    made = Record.model_json_schema()
    spine = {"schema_version", "run", "config", "seed", "warnings", "verdict", "baseline", "stages"}
    assert spine <= set(made["properties"])
    measure = {
        "size_bytes", "payload_bytes", "params", "macs", "score", "retention", "compression_ratio", "flips",
        "agreement", "kl_mean", "test_samples",
    }  # fmt: skip
    assert measure <= set(made["$defs"]["ModelRecord"]["properties"])
    stage_keys = {"position", "name", "settings", "seconds", "cached", "form", "file", "latency"}
    assert measure | stage_keys <= set(made["$defs"]["StageRecord"]["properties"])


def test_final_is_the_last_model_that_was_measured() -> None:
    assert record().final is None
    assert record(baseline=model()).final == model()
    assert record(stage(), stage(), baseline=model()).final == stage()


def test_a_report_that_holds_nan_is_null_in_the_file_and_still_loads(tmp_path: Path) -> None:
    record(stage(reports={"mean": math.nan}), folder=str(tmp_path)).save()
    assert "NaN" not in (tmp_path / "record.json").read_text()  # which is no JSON
    assert Record.load(tmp_path).stages[0].reports == {"mean": None}


@pytest.mark.parametrize(("name", "kind"), [("record", Record), ("comparison", ComparisonRecord)])
def test_the_published_schema_is_that_of_the_code(name: str, kind: type[BaseModel]) -> None:
    published = Path(__file__).parents[3] / "docs" / f"{name}.schema.json"
    assert json.loads(published.read_text()) == kind.model_json_schema(), (
        f"shrink schema --{name} > docs/{published.name}"
    )
