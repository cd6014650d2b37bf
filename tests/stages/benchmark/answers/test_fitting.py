"""A file that takes one shape alone is not asked others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import StageError
from stages.benchmark.answers.fitting import fitting
from stages.benchmark.conversion import save_inputs
from stages.benchmark.runtime import Runtime


class Fixed(Runtime):
    fixed_batch = True


def feed(length: int, size: int = 1) -> dict[str, Any]:
    return {"ids": np.ones((size, length), np.int64), "mask": np.ones((size, length), np.int64)}


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    tensors = {name: torch.from_numpy(values) for name, values in feed(12).items()}
    return {"inputs": save_inputs(tensors, tmp_path / "inputs.npz")}


def test_an_example_of_another_length_is_told_with_its_input(spec: dict[str, Any]) -> None:
    message = "its file takes `ids` of 12 alone, and examples of the task have 30 too.*leave litert out"
    with pytest.raises(StageError, match=message):
        [*fitting([feed(12), feed(30)], Fixed(use="litert"), spec)]


def test_any_number_of_examples_fits_and_other_runtimes_take_all(spec: dict[str, Any]) -> None:
    assert len([*fitting([feed(12), feed(12, 4)], Fixed(use="litert"), spec)]) == 2
    assert len([*fitting([feed(12), feed(30)], Runtime(use="onnxruntime"), spec)]) == 2
