"""The networks that are compressed: how each is loaded or trained, and which of its examples are for what."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import yaml

from pipeline.base.use import Reference
from pipeline.task import Split, Task

from .samples import Example, write

CONFIGS = Path(__file__).parents[2] / "configs"
CALIBRATION = 512
VALIDATION = 8000
"""Examples on which ranges are measured and accuracy is controlled, at most."""


class Net(NamedTuple):
    """A network.

    Args:
        folder: of configs/, with its code.
        task, model: of the pipeline file.
        baseline: stages that train it.
        is_seen: whether the weights, as published, have seen what the task validates on. Then the first of the test
            examples are for validation, and the others for the test.
    """

    folder: str
    task: dict[str, Any]
    model: dict[str, Any]
    baseline: list[dict[str, Any]]
    is_seen: bool


def nets(data: Path, weights: Path, words: str) -> dict[str, Net]:
    """By name; `data` has cifar10 and sst2, `weights` is the published resnet56.th, `words` is all-MiniLM-L6-v2."""
    trained = {"use": "train.supervised", "epochs": 1, "batch_size": 32, "learning_rate": 6e-5, "schedule": "linear"}
    return {
        "cifar10": Net(
            "cifar10",
            {"use": "data.py", "path": str(data / "cifar10")},
            {"use": "models.py:resnet56", "weights": str(weights)},
            [],
            is_seen=True,
        ),
        "sst2": Net(
            "sst2",
            {"use": "data.py", "data": str(data / "sst2"), "tokenizer": words, "validation": 0.125},
            {"use": "huggingface", "name": words},
            [trained | {"warmup": 0.1}],
            is_seen=False,
        ),
    }


def prepare(net: Net, folder: Path, limit: int | None) -> None:
    """Write fp32.onnx, samples.npz and test.npz, unless they are there; `limit` examples of each part at most."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "fp32.onnx").is_file():
        shutil.copy(exported(net, folder / "fp32", limit), folder / "fp32.onnx")
    if (folder / "test.npz").is_file():
        return
    arguments = {name: value for name, value in net.task.items() if name != "use"}
    task: Task = Reference(use="data.py:task", arguments=arguments, folder=CONFIGS / net.folder).call()
    first = list(range(min(VALIDATION, len(task.test) // 2))) if net.is_seen else []
    validation = task.test.select(first) if first else task.validation
    parts = {"calibration": (task.calibration, CALIBRATION), "validation": (validation, VALIDATION)}
    write(folder / "samples.npz", {name: _part(split, limit or most) for name, (split, most) in parts.items()})
    rest = task.test.select(list(range(len(first), len(task.test))))
    write(folder / "test.npz", {"test": _part(rest, limit)})


def exported(net: Net, runs: Path, limit: int | None) -> Path:
    """The ONNX file of the network, trained where it has to be."""
    chain = {"task": net.task, "model": net.model, "stages": [{"use": "export.onnx"}]}
    chain |= {"baseline": net.baseline} if net.baseline else {}
    with NamedTemporaryFile("w", dir=CONFIGS / net.folder, suffix=".yaml") as config:  # beside its code
        yaml.safe_dump(chain, config)
        config.flush()
        command = [sys.executable, "-m", "pipeline", "run", config.name, "--json", "--runs", str(runs)]
        command += ["--limit", str(limit)] if limit else []
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        sys.exit(f"the run of {net.folder} ended with {ended.returncode}")
    record = json.loads(ended.stdout)
    return Path(runs, record["run"], record["stages"][-1]["file"])


def _part(split: Split, limit: int | None) -> tuple[list[Example], list[int]]:
    """Its examples, of one each, and their labels."""
    rows = list(_rows(split, min(limit or len(split), len(split))))
    return [inputs for inputs, _ in rows], [label for _, label in rows]


def _rows(split: Split, count: int) -> Iterator[tuple[Example, int]]:
    for position in range(count):
        inputs, label = split[position]
        yield {name: value.unsqueeze(0).numpy() for name, value in inputs.items()}, int(label)
