"""A converter in a process of its own, which alone ends where it aborts, hangs or takes all memory."""

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import stages
from pipeline.errors import StageError
from stages import benchmark
from stages.benchmark import runners

LAST = 3  # lines of what failed
COLORS = re.compile(r"\x1b\[[0-9;]*m")


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
    """
    target, path = Path(spec["model"]), root / "convert.json"
    path.write_text(json.dumps(spec))
    command = [str(python), "-m", "stages.benchmark.runners.edge.child", str(path)]
    options: dict[str, Any] = {"cwd": root, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # A session of its own, so that what it started ends with it.
    with subprocess.Popen(command, text=True, errors="replace", start_new_session=True, **options) as process:
        try:
            text, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise _failed(name, f"did not end within {seconds:g} s", "") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == -signal.SIGKILL:
        raise _failed(name, "was ended by SIGKILL, as the system does when memory runs out", text)
    if process.returncode < 0:
        raise _failed(name, f"was ended by {signal.Signals(-process.returncode).name}", text)
    if process.returncode:
        raise _failed(name, f"ended with {process.returncode}", text)
    if not target.is_file() or not target.stat().st_size:
        raise _failed(name, "wrote no file", text)
    return target


def _failed(name: str, what: str, text: str) -> StageError:
    lines = [line.strip() for line in COLORS.sub("", text).splitlines() if line.strip()]
    last = " | ".join(lines[-LAST:])
    return StageError(f"the converter of {name} {what}{f': {last}' if last else ''}")


def alone(folder: Path) -> Path:
    """A folder inside `folder` with the runners and nothing else of ours, for an interpreter that has its own packages.

    Where this is installed, its own place is a folder with all packages of this environment.
    """
    root = folder / "alone"
    for package in (stages, benchmark):
        name = Path(*package.__name__.split("."), "__init__.py")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    source = Path(runners.__path__[0])
    shutil.copytree(source, root / "stages" / "benchmark" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return root
