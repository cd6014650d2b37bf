"""Parts of a dataset: by name or by share, limited, and the same when streamed."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.huggingface import task
from pipeline.tasks.huggingface.settings import Settings
from pipeline.tasks.huggingface.source import READERS, Parts, quiet, read, roles
from tests import sets
from tests.forked import shrink


def asked(**arguments: Any) -> Settings:
    return Settings(**{"data": "set", **arguments})


def texts(rows: Dataset) -> list[str]:
    return list(rows["text"][:])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return sets.write(tmp_path / "set", **sets.split(sets.texts(250), train=200, test=50))


@pytest.mark.parametrize(("arguments", "names", "found"), [
    ({}, ["train", "validation", "test"], ("train", "validation", "test")),
    ({}, ["train", "dev", "test"], ("train", "dev", "test")),
    ({}, ["train"], ("train", 0.1, 0.1)),
    ({"validation": 0.2}, ["train", "validation", "test"], ("train", 0.2, "test")),
    ({"test": "validation"}, ["train", "validation", "test"], ("train", 0.1, "validation")),
    ({"validation": "test"}, ["train", "test"], ("train", "test", 0.1)),
    ({"train": "a", "test": "b"}, ["a", "b"], ("a", 0.1, "b")),
])  # fmt: skip
def test_parts_are_named_usual_or_shares(arguments: dict[str, Any], names: list[str], found: tuple[Any, ...]) -> None:
    assert tuple(roles(asked(**arguments), names).values()) == found


@pytest.mark.parametrize(("arguments", "message"), [
    ({"train": "trian"}, r"`train` is trian; did you mean `train`\?"),
    ({"test": "tset"}, r"`test` is tset.*or a share of train"),
    ({"validation": "test", "test": "test"}, r"each part once"),
    ({"limit": {"validation": 9}}, r"`limit` has validation, which is a share of train"),
])  # fmt: skip
def test_parts_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        roles(asked(**arguments), ["train", "test"])


def test_shares_are_disjoint_cover_train_and_depend_on_the_seed_alone(folder: str) -> None:
    def cut(**arguments: Any) -> tuple[list[str], list[str]]:
        parts = read(asked(data=folder, **arguments))
        return texts(parts.train), texts(parts.validation)

    (train, validation), again, other = cut(), cut(), cut(seed=1)
    assert (len(train), len(validation)) == (180, 20)
    assert sorted(train + validation) == sorted(sets.texts(200)["text"])
    assert again == (train, validation)
    assert set(other[1]) != set(validation)


def test_what_nobody_asked_for_is_noted(folder: str) -> None:
    assert read(asked(data=folder)).notes == ("validation is 10% of `train`, drawn with seed 0",)
    assert read(asked(data=folder, validation=0.1)).notes == ()


def sizes(parts: Parts) -> tuple[int, int, int]:
    return len(parts.train), len(parts.validation), len(parts.test)


@pytest.mark.parametrize("streaming", [False, True])
def test_limits_are_of_each_part_or_of_all(folder: str, streaming: bool) -> None:
    assert sizes(read(asked(data=folder, limit=40, streaming=streaming))) == (36, 4, 40)
    assert sizes(read(asked(data=folder, limit={"train": 100}, streaming=streaming))) == (90, 10, 50)


def test_a_limit_draws_at_random_and_a_stream_takes_the_first(folder: str) -> None:
    drawn, first = (read(asked(data=folder, limit=40, streaming=s)) for s in (False, True))
    assert texts(first.test) == sets.texts(250)["text"][200:240]
    assert texts(drawn.test) != texts(first.test)
    assert set(texts(drawn.test)) <= set(sets.texts(250)["text"][200:])


def test_a_stream_gives_the_rows_that_reading_gives_and_reads_them_once(folder: str, offline: Path) -> None:
    whole, streamed = (read(asked(data=folder, streaming=s)) for s in (False, True))
    for name in ("train", "validation", "test"):
        ours, theirs = getattr(streamed, name), getattr(whole, name)
        assert ours.features == theirs.features
        assert ours.to_dict() == theirs.to_dict()
    kept = {file: file.stat().st_mtime_ns for file in offline.glob("shrinkline/stream-*")}
    assert all(str(file).endswith(".arrow") for file in kept)
    read(asked(data=folder, streaming=True))
    assert {file: file.stat().st_mtime_ns for file in offline.glob("shrinkline/stream-*")} == kept


def test_a_streams_rows_are_read_again_when_the_file_is_another(tmp_path: Path) -> None:
    file = tmp_path / "set" / "train.jsonl"
    file.parent.mkdir()
    for number in (1, 2):
        file.write_text("".join(json.dumps({"text": f"{number} {i}", "label": i % 2}) + "\n" for i in range(30)))
        os.utime(file, (number, number))
        parts = read(asked(data=str(file.parent), streaming=True))
        assert {text[0] for text in texts(parts.train)} == {str(number)}


def test_what_was_saved_to_disk_is_read_too(tmp_path: Path) -> None:
    from datasets import DatasetDict

    DatasetDict(sets.split(sets.texts(30), train=20, test=10)).save_to_disk(tmp_path / "saved")
    assert sizes(read(asked(data=str(tmp_path / "saved")))) == (18, 2, 10)
    before = sorted(tmp_path.rglob("*"))
    task(data=str(tmp_path / "saved"), vocabulary=60)
    assert sorted(tmp_path.rglob("*")) == before  # what is made of them lies elsewhere
    with pytest.raises(ConfigError, match=r"is one that save_to_disk wrote.*Leave out `streaming`"):
        read(asked(data=str(tmp_path / "saved"), streaming=True))


def test_a_dataset_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`data` is .*nowhere, and it cannot be read.*Give a folder"):
        read(asked(data=str(tmp_path / "nowhere")))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "train.jsonl").write_text("{no")
    with pytest.raises(ConfigError, match=r"damaged, and it cannot be read: JSON parse error"):
        read(asked(data=str(damaged)))
    with pytest.raises(ConfigError, match=r"BuilderConfig 'other' not found"):
        read(asked(data=sets.write(tmp_path / "set", train=sets.texts(9)), config="other"))


@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl"])
def test_a_damaged_file_is_told_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / name).write_bytes(b"{no file of this kind" * 20)
    (tmp_path / "my.yaml").write_text(
        "task: {use: huggingface, data: damaged, vocabulary: 60}\n"
        "model: {use: huggingface, config: {model_type: bert}}\nstages: [{use: export.onnx}]\n"
    )
    done = shrink("plan", "my.yaml", cwd=tmp_path, HF_DATASETS_CACHE=str(tmp_path / "hub"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"shrink: my.yaml:1: task (huggingface): `data` is {tmp_path / 'damaged'}, and it cannot be")


def test_warnings_of_the_library_stay() -> None:
    reader = f"{READERS}.parquet.parquet"
    (handler,) = logging.getLogger("datasets").handlers
    with quiet():
        assert not handler.filter(record(reader, logging.ERROR))
        assert handler.filter(record(reader, logging.WARNING))
        assert handler.filter(record("datasets.load", logging.ERROR))
    assert handler.filter(record(reader, logging.ERROR))


def record(name: str, level: int) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, "", (), None)


def test_a_part_without_rows_is_refused(tmp_path: Path) -> None:
    few = sets.write(tmp_path / "few", train=sets.texts(3))
    with pytest.raises(ConfigError, match=r"there are no rows for validation"):
        read(asked(data=few))
