"""Encoded rows: on disk and not in memory, with labels that are there, and none of test in train."""

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from torch.utils.data import DataLoader

from pipeline.build.probe import probe
from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.huggingface import task
from pipeline.tasks.huggingface.targets import Classes, Reals, classes
from tests import sets

SIZE = 60


def labelled(values: list[Any], feature: Any) -> Dataset:
    return Dataset.from_dict({"label": values}, features=Features({"label": feature}))


@pytest.mark.parametrize(("values", "feature", "names", "numbers"), [
    ([1, 0, 1], ClassLabel(names=["no", "yes"]), ("no", "yes"), [1, 0, 1]),
    (["b", "a", "c", "a"], Value("string"), ("a", "b", "c"), [1, 0, 2, 0]),
    ([10, -1, 2], Value("int64"), ("-1", "2", "10"), [2, 0, 1]),
    ([True, False], Value("bool"), ("False", "True"), [1, 0]),
])  # fmt: skip
def test_labels_are_those_of_the_dataset_or_of_train_sorted(
    values: list[Any], feature: Any, names: tuple[str, ...], numbers: list[int]
) -> None:
    found = classes(labelled(values, feature), "label")
    assert found.names == names
    assert found(values) == numbers


def test_labels_that_cannot_be_are_refused() -> None:
    of_words = classes(labelled(["a", "b"], Value("string")), "label")
    with pytest.raises(ConfigError, match=r"the label 'z' in `label` does not occur in train; expected a, b"):
        of_words(["a", "z"])
    hidden = r"a label in `label` is -1, as labels that are kept secret are.*Set `test`.*`test: validation`"
    with pytest.raises(ConfigError, match=hidden):
        Classes("label", ("no", "yes"))([0, -1])
    with pytest.raises(ConfigError, match=hidden):
        classes(labelled([0, 1], Value("int64")), "label")([-1])
    with pytest.raises(ConfigError, match=r"`label` has the labels a; expected two or more"):
        classes(labelled(["a", "a"], Value("string")), "label")
    with pytest.raises(ConfigError, match=r"`label` holds real numbers"):
        classes(labelled([0.5, 1.0], Value("float32")), "label")


def test_hidden_labels_are_found_before_any_work(tmp_path: Path) -> None:
    rows = sets.texts(30)
    secret = rows.remove_columns("label").add_column("label", [-1] * 30).cast(rows.features)
    folder = sets.write(tmp_path / "glue", train=sets.texts(90).select(range(30, 90)), test=secret)
    with pytest.raises(ConfigError, match=r"test: a label in `label` is -1"):
        task(data=folder, vocabulary=SIZE)


def test_real_targets_are_scaled_by_the_range() -> None:
    assert Reals("score", 1.0, 5.0)([1, 3, 5]) == [0.0, 0.5, 1.0]
    with pytest.raises(ConfigError, match=r"a value in `score` is nan"):
        Reals("score")([float("nan")])


def test_examples_lie_on_disk_and_are_encoded_once(tmp_path: Path) -> None:
    folder = sets.write(tmp_path / "set", **sets.split(sets.texts(80), train=60, test=20))
    first, second = (task(data=folder, vocabulary=SIZE).train.dataset for _ in range(2))
    (file,) = first.table.cache_files  # type: ignore[attr-defined]
    assert Path(file["filename"]).stat().st_size > 0
    assert second.table.cache_files == [file]  # type: ignore[attr-defined]
    other = task(data=folder, vocabulary=SIZE, max_length=4).train.dataset
    assert other.table.cache_files != [file]  # type: ignore[attr-defined]
    assert len(pickle.dumps(first)) < 5000  # what a loader's process is sent names the file


def test_spawned_workers_read_the_same_batches(tmp_path: Path) -> None:
    folder = sets.write(tmp_path / "set", **sets.split(sets.texts(40), train=30, test=10))
    split = task(data=folder, vocabulary=SIZE).train
    spawn = multiprocessing.get_context("spawn")
    how: dict[str, Any] = {"batch_size": 9, "collate_fn": split.collate}
    workers = DataLoader(split.dataset, **how, num_workers=1, multiprocessing_context=spawn)  # type: ignore[arg-type]
    here = DataLoader(split.dataset, **how)  # type: ignore[arg-type]
    for (ours, labels), (theirs, expected) in zip(workers, here, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert torch.equal(labels, expected)


def test_what_is_in_test_too_is_refused_or_left_out(tmp_path: Path) -> None:
    rows = sets.texts(80)
    folder = sets.write(tmp_path / "set", train=rows.select(range(60)), test=rows.select(range(50, 80)))
    with pytest.raises(ConfigError, match=r"train examples are also in test"):
        probe(task(data=folder, vocabulary=SIZE, validation=0.1))
    found = task(data=folder, vocabulary=SIZE, validation=0.1, overlap="drop")
    probe(found)
    assert len(found.train) + len(found.validation) == 50
    assert len(found.test) == 30
    assert sum([int(note.split()[0]) for note in found.notes if "are left out, for test has them" in note]) == 10
    assert found.train.fingerprint == found.test.fingerprint


def test_where_nothing_is_left_it_is_an_error(tmp_path: Path) -> None:
    rows = sets.texts(30)
    with pytest.raises(ConfigError, match=r"all train examples are in test too"):
        task(data=sets.write(tmp_path / "set", train=rows, test=rows), vocabulary=SIZE, overlap="drop")
