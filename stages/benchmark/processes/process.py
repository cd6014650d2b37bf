"""The fresh processes that load a model in a runtime: one at a time, each told by a file and telling by another."""

import json
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from pipeline.errors import StageError
from stages.benchmark.processes.module import ROOT, run_module
from stages.benchmark.runners.loaded import Arrays, read_batches

Spec = dict[str, Any]
"""What `stages.benchmark.runners.child` reads; `python` is the interpreter, this one's unless given, and `root`
the folder with `stages` that it runs in, ours unless given."""


def time_process(spec: Spec, folder: Path) -> tuple[list[float], dict[str, Any]]:
    """Time a model in a fresh process.

    Args:
        spec: what the process reads, without `result`; paths are absolute.
        folder: where the spec and the result are written.

    Returns:
        Latencies in milliseconds, and what else the process tells: `description`, `startup` and `memory`.

    Raises:
        StageError: the process failed; with the last lines that it wrote.
        ResourceError: it was killed, most likely for memory.
    """
    content = run_process(spec, folder, "timed")
    return [ns / 1e6 for ns in content.pop("samples_ns")], content


def answers(spec: Spec, batches: Path, folder: Path) -> list[Arrays]:
    """The outputs of a model for batches that `write_batches` wrote, in a fresh process; raises as `time_process`."""
    path = folder / "answers.npz"
    run_process({**spec, "batches": str(batches), "answers": str(path)}, folder, "answered")
    return read_batches(path)


def run_process(spec: Spec, folder: Path, did: str) -> dict[str, Any]:
    """What a fresh process tells; `did` says in messages what it was for. Raises as `time_process`."""
    path, result = folder / "spec.json", folder / "result.json"
    result.unlink(missing_ok=True)
    path.write_text(json.dumps({**spec, "result": str(result), "began": monotonic()}))
    who = f"the process that {did} {spec['model']}"
    python, root = spec.get("python", sys.executable), Path(spec.get("root", ROOT))
    run_module("stages.benchmark.runners.child", [path], who, python, root)
    if not result.is_file():
        raise StageError(f"{who} ended without a result")
    return dict(json.loads(result.read_text()))
