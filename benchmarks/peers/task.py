"""The examples that all tools get, as a task: what is calibrated on, what accuracy is controlled on, and the test."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipeline.base.batches import Inputs
from pipeline.task import Split, Task, classification

from .samples import examples, labels

PADDING = {"input_ids": 0, "attention_mask": 0}


def task(samples: str, test: str) -> Task:
    """Single-label classification.

    Args:
        samples: a file of `samples.write` with the parts calibration and validation.
        test: another with the part test.
    """
    calibration, validation = (_split(Path(samples), part) for part in ("calibration", "validation"))
    is_text = "input_ids" in calibration[0][0]
    axes: dict[str, Any] = {"axes": {name: {1: "tokens"} for name in PADDING}} if is_text else {}
    return classification(calibration, validation, _split(Path(test), "test"), calibration=calibration, **axes)


def _split(path: Path, part: str) -> Split:
    rows = [
        ({name: torch.from_numpy(value[0]) for name, value in row.items()}, int(label))
        for row, label in zip(examples(path, part), labels(path, part), strict=True)
    ]
    return Split(rows, collate=_batch)


def _batch(rows: list[tuple[Inputs, int]]) -> tuple[Inputs, Tensor]:
    """Texts are padded to the longest of their batch."""
    inputs = {
        name: pad_sequence([row[name] for row, _ in rows], batch_first=True, padding_value=PADDING[name])
        if name in PADDING
        else torch.stack([row[name] for row, _ in rows])
        for name in rows[0][0]
    }
    return inputs, torch.tensor([label for _, label in rows])
