"""A converter in a process of its own, with the packages of its environment."""

import json
import shutil
from pathlib import Path
from typing import Any

import pipeline
import stages
from pipeline import forms
from pipeline.errors import StageError
from pipeline.forms import generate
from stages import benchmark
from stages.benchmark import runners
from stages.benchmark.processes.module import run_module


def convert(name: str, spec: dict[str, Any], python: Path, root: Path, seconds: float) -> Path:
    """The file that a converter writes.

    Args:
        name: of the runtime, for messages.
        spec: what `stages.benchmark.runners.edge.child` reads: `runner`, `source`, and `model`, the file to write.
        python: the interpreter that has the converter.
        root: where the runners are, see `alone`; the spec is written there.
        seconds: it may take.

    Raises:
        StageError: it ended otherwise than with the file; with the last lines that it wrote.
        ResourceError: it was killed, most likely for memory.
    """
    target, path, who = Path(spec["model"]), root / "convert.json", f"the converter of {name}"
    path.write_text(json.dumps(spec))
    last = run_module("stages.benchmark.runners.edge.child", [path], who, str(python), root, seconds)
    if not target.is_file() or not target.stat().st_size:
        raise StageError(f"{who} wrote no file{f': {last}' if last else ''}")
    return target


def alone(folder: Path) -> Path:
    """A folder inside `folder` with the runners and what they need of ours, for an interpreter with its own packages.

    Where this is installed, its own place is a folder with all packages of this environment.
    """
    root = folder / "alone"
    for package in (stages, benchmark, pipeline, forms):
        name = Path(*package.__name__.split("."), "__init__.py")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    shutil.copyfile(Path(generate.__file__), root / "pipeline" / "forms" / "generate.py")
    source = Path(runners.__path__[0])
    shutil.copytree(source, root / "stages" / "benchmark" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return root
