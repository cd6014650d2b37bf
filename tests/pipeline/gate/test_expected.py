"""expected.json: the same bytes from the same run, everything back, and a clear word where it cannot be read."""

import base64
import hashlib
import json
import resource
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.base.hardware import host
from pipeline.errors import ConfigError
from pipeline.gate.budget import Budget
from pipeline.gate.expected import Expected, PackedScores, load, load_expected, needs_expected, of_run, write
from pipeline.records.record import Failure, Record
from tests import records

FIGURES: dict[str, Any] = {"size_bytes": 1000, "payload_bytes": 900, "params": 200, "macs": 3000, "score": 0.9}


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """A run of one stage with its model and its predictions."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"a model")
    scores = np.random.default_rng(0).integers(0, 2, 403).astype(float)
    save_file({"predictions": np.zeros((403, 4), np.float32), "scores": scores}, folder / "predictions.safetensors")
    return records.record(
        records.stage(0, "export.onnx", **FIGURES, test_samples=403),
        folder=str(folder),
        config={"name": "mine"},
        seed=3,
        data={name: {"examples": 403, "digest": f"of {name}"} for name in ("train", "test")},
        environment={"versions": {"torch": "2", "numpy": "1"}, "host": "here"},
    )


def scores_in(record: Record) -> Any:
    from safetensors.numpy import load_file

    return load_file(Path(record.folder) / "predictions.safetensors")["scores"]


def test_the_same_run_gives_the_same_bytes_and_all_of_it_comes_back(record: Record, tmp_path: Path) -> None:
    first = write(of_run(record), tmp_path / "a.json").read_bytes()
    later = record.model_copy(update={"run": "another", "started": "2027-01-01"})
    assert write(of_run(later), tmp_path / "b.json").read_bytes() == first
    assert first.endswith(b"}\n")
    data = json.loads(first)
    assert list(data) == sorted(data)
    found = load(tmp_path / "a.json")
    assert {name: getattr(found, name) for name in FIGURES} == FIGURES
    assert (found.config, found.seed, found.host) == ("mine", 3, "here")
    assert found.versions == {"torch": "2", "numpy": "1"}
    digests = {"model": hashlib.sha256(b"a model").hexdigest(), "train": "of train", "test": "of test"}
    assert (found.schema_version, found.digests) == (1, digests)
    assert np.array_equal(found.scores.scores(), scores_in(record))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json", "run"]


def test_a_record_that_does_not_tell_its_machine_was_made_on_this_one(record: Record) -> None:
    record.environment.pop("host")
    assert of_run(record).host == host()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1000])
def test_right_or_wrong_scores_take_a_bit_each(size: int) -> None:
    scores = np.random.default_rng(size).integers(0, 2, size).astype(float)
    packed = PackedScores.of(scores)
    assert (packed.kind, packed.count) == ("bits", size)
    assert len(packed.data) <= 4 * -(-size // 24)
    assert np.array_equal(packed.scores(), scores)


def test_graded_scores_are_kept_as_float32() -> None:
    scores = np.random.default_rng(0).normal(size=500)
    packed = PackedScores.of(scores)
    assert packed.kind == "float32"
    assert np.array_equal(packed.scores(), scores.astype(np.float32))


def test_without_predictions_there_are_no_scores(record: Record) -> None:
    (Path(record.folder) / "predictions.safetensors").unlink()
    assert of_run(record).scores is None


def test_only_a_run_that_came_to_its_end_is_expected(record: Record) -> None:
    failed = record.model_copy(update={"failure": Failure(where="x", message="", exit_code=3)})
    with pytest.raises(ConfigError, match="it ended in x, so it has no last model"):
        of_run(failed)
    (Path(record.folder) / "model.onnx").unlink()
    with pytest.raises(ConfigError, match=r"model\.onnx: it is gone"):
        of_run(record)


@pytest.mark.parametrize(("limits", "expected"), [
    ({}, False),
    ({"retention": {"min": 0.9}, "size": {"max": 5}, "macs": {"max": 0.5, "of": "baseline"}}, False),
    ({"retention": {"min": 0.9, "of": "expected"}}, True),
    ({"size": {"max": 1.1, "of": "expected"}}, True),
    ({"params": {"max": 1, "of": "expected"}}, True),
    ({"macs": {"max": 1, "of": "expected"}}, True),
])  # fmt: skip
def test_the_file_is_read_only_where_a_limit_asks(record: Record, tmp_path: Path, limits: Any, expected: bool) -> None:
    budget = Budget.model_validate({**limits, "expected": "old/expected.json"})
    assert needs_expected(budget) == expected
    if not expected:
        assert load_expected(budget, tmp_path) is None
        return
    with pytest.raises(ConfigError, match=r"old/expected\.json: there is no such file\. .*shrink expect RUN"):
        load_expected(budget, tmp_path)
    (tmp_path / "old").mkdir()
    made = of_run(record)
    write(made, tmp_path / "old" / "expected.json")
    assert load_expected(budget, tmp_path) == made


def damaged(data: dict[str, Any], **changes: Any) -> str:
    return json.dumps({**data, **changes})


def test_a_file_that_cannot_be_read_is_named_with_the_command_that_writes_it(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "expected.json"
    data: dict[str, Any] = of_run(record).model_dump(mode="json")
    scores = data["scores"]
    for text, message in {
        "": "it is damaged",
        "[1]": "it is damaged",
        damaged(data)[:-30]: "it is damaged",
        damaged(data, score="much"): "it is damaged: score",
        damaged(data, more=1): "it is damaged: more",
        damaged(data, schema_version=2): "it is of version 2, and this program knows 1",
        damaged(data, scores={**scores, "count": 404 + 8}): "it is damaged: the scores are not 412",
        damaged(data, scores={**scores, "data": "%%"}): "it is damaged: the scores cannot be read",
        damaged(data, scores={**scores, "kind": "float32"}): "it is damaged: the scores cannot be read",
    }.items():
        path.write_text(text)
        with pytest.raises(ConfigError, match=message) as caught:
            load(path)
        assert caught.value.where == str(path)
        assert "shrink expect RUN" in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="it is damaged"):
        load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="it cannot be read"):
        load(path)


def test_scores_that_would_unfold_to_more_than_they_say_are_not_unfolded() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(2**28), 9)).decode()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="the scores are not 10 finite numbers"):
        PackedScores(count=10, kind="float32", data=bomb).scores()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # kilobytes
    with pytest.raises(ValueError, match="less than or equal to 10000000"):
        PackedScores(count=10**9, kind="float32", data=bomb)


def test_a_place_that_cannot_be_written_is_named(record: Record, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none/expected\.json: it cannot be written: No such file"):
        write(of_run(record), tmp_path / "none" / "expected.json")


def test_the_figures_are_a_closed_set(record: Record) -> None:
    with pytest.raises(ValueError, match="extra"):
        Expected(**{**of_run(record).model_dump(), "more": 1})
