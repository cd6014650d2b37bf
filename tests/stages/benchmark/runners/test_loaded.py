"""How arrays pass between processes."""

from pathlib import Path

import numpy as np
import pytest

from stages.benchmark.runners.loaded import read_batches, write_batches


def test_batches_come_back_as_they_were(tmp_path: Path) -> None:
    batches = [
        {"a/b": np.arange(6, dtype=np.int64).reshape(2, 3), "flag.npy": np.array([True])},
        {"a/b": np.zeros((0, 3), np.float16), "whole": np.float64(3)},
        *({"n": np.full(1, i, np.uint8)} for i in range(10)),
    ]
    path = tmp_path / "batches.npz"
    assert write_batches(iter(batches), path) == 12
    for batch, other in zip(batches, read_batches(path), strict=True):
        assert [*batch] == [*other]
        assert all(other[name].dtype == value.dtype for name, value in batch.items())
        assert all(np.array_equal(other[name], value) for name, value in batch.items())
    with np.load(path, allow_pickle=False) as arrays:  # a usual .npz
        assert arrays["0/a/b"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        write_batches([{"a": np.array([object()])}], tmp_path / "batches.npz")
    assert write_batches([], tmp_path / "empty.npz") == 0
    assert list(read_batches(tmp_path / "empty.npz")) == []
