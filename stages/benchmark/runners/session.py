"""A model in its runtime as predict.py opens it: inputs and outputs are those of model.json, runner.py answers."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.benchmark.runners.loaded import Arrays


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its dtype in numpy, its shape with the batch in front."""

    name: str
    type: str
    shape: list[int | str]


class InferenceSession:
    """Answers as ONNX Runtime's class of this name does.

    Args:
        path: the model's file; model.json lies beside it.
        providers: not looked at.
    """

    def __init__(self, path: Path, providers: Any = ()) -> None:
        _keep_output()
        self.about = json.loads((path.parent / "model.json").read_text())
        spec = {**self.about["runtime"]["told"], "model": str(path), "threads": os.cpu_count() or 1}
        self.loaded = importlib.import_module("runner").load(spec)

    def get_inputs(self) -> list[Port]:
        """What it takes."""
        return [_port(entry) for entry in self.about["inputs"]]

    def get_outputs(self) -> list[Port]:
        """What it gives."""
        return [_port(entry) for entry in self.about["outputs"]]

    def run(self, names: list[str], arrays: Arrays) -> list[Any]:
        """The outputs of these names, in as many inferences as the number of examples needs that it takes."""
        places = [
            [port.name for port in self.get_outputs()].index(name) for name in names
        ]  # it may call them otherwise
        answers = [[*self.loaded.answers(self.loaded.prepare(piece)()).values()] for piece in self._pieces(arrays)]
        if not answers:  # no examples, which not every runtime takes
            entries = [self.about["outputs"][place] for place in places]
            return [np.zeros((0, *(max(size, 0) for size in entry["shape"])), entry["dtype"]) for entry in entries]
        return [np.concatenate([answer[place] for answer in answers]) for place in places]

    def _pieces(self, arrays: Arrays) -> Iterator[Arrays]:
        count = len(next(iter(arrays.values())))
        size = self.about["runtime"]["batch"] or max(count, 1)
        for start in range(0, count, size):
            yield {name: np.ascontiguousarray(value[start : start + size]) for name, value in arrays.items()}


def _keep_output() -> None:
    """Let Python alone write to standard output, which is data; what libraries write goes to standard error."""
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)


def _port(entry: dict[str, Any]) -> Port:
    return Port(entry["name"], entry["dtype"], ["batch", *("any" if size < 0 else size for size in entry["shape"])])
