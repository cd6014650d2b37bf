"""What a file is worth, in ONNX Runtime on one thread: right or wrong on the test, and latencies in turns."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipeline.measure.statistics.pairs import Scores
from stages.benchmark.processes.process import answers, time_process

from .samples import Example, examples, labels

WARMUP = 20


def scores(file: Path, test: Path, folder: Path) -> Scores:
    """1 where the answer is right, else 0: (N,), an example at a time as it is deployed."""
    outputs = answers(_spec(file), examples(test, "test"), folder)
    classes = [next(iter(output.values())).argmax() for output in outputs]
    return (np.array(classes) == labels(test, "test")).astype(float)


def latencies(files: Sequence[Path], test: Path, rounds: int, seconds: float, folder: Path) -> list[list[float]]:
    """Median latency in milliseconds of each file by round, each of a fresh process; rounds begin with another file.

    The example is the one of median length.
    """
    inputs = folder / "inputs.npz"
    np.savez(inputs, **typical(examples(test, "test")))
    told: dict[str, Any] = {"inputs": str(inputs), "warmup": WARMUP, "seconds": seconds, "iterations": None}
    table = [[0.0] * rounds for _ in files]
    for turn in range(rounds):
        for step in range(len(files)):
            place = (turn + step) % len(files)
            table[place][turn] = median(time_process(_spec(files[place]) | told, folder)[0])
    return table


def typical(rows: Sequence[Example]) -> Example:
    """Of all examples one that is neither short nor long."""
    return sorted(rows, key=lambda row: sum(value.size for value in row.values()))[len(rows) // 2]


def _spec(file: Path) -> dict[str, Any]:
    return {"runner": "onnxruntime", "model": str(file), "threads": 1}
