"""A module of ours in a fresh process, which alone ends where it aborts, hangs or takes all memory."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import ResourceError, StageError

ROOT = Path(__file__).parents[3]
LAST = 5  # lines of what failed
COLORS = re.compile(r"\x1b\[[0-9;]*m")
LESS = "Lower `batch`, or run where there is more memory"


def run_module(
    name: str,
    arguments: Sequence[Path],
    who: str,
    python: str = sys.executable,
    root: Path = ROOT,
    seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The last lines that a module writes, run to its end.

    Args:
        name: of the module.
        arguments: that it gets.
        who: the process in messages, such as "the converter of ncnn".
        python: the interpreter.
        root: the folder with `stages` that it runs in.
        seconds: it may take; None for any.
        environment: variables that it has beside ours.

    Raises:
        StageError: it ended otherwise than with 0, or not in time; with its last lines.
        ResourceError: it was killed, most likely for memory.
    """
    # -u, so that the lines of both streams come in their order. -m looks in the current folder first: ours, not one
    # where the user may have an onnx.py.
    command = [python, "-u", "-m", name, *map(str, arguments)]
    options: dict[str, Any] = {"cwd": root, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    options["env"] = {**os.environ, **(environment or {})}
    # A session of its own, so that what it started ends with it.
    with subprocess.Popen(command, text=True, errors="replace", start_new_session=True, **options) as process:
        try:
            text, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise StageError(f"{who} did not end within {seconds:g} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    last = last_lines(text)
    ending = f": {last}" if last else ""
    if process.returncode == -signal.SIGKILL:
        raise ResourceError(f"{who} was killed, as the system does when memory runs out{ending}", fix=LESS)
    if process.returncode < 0:
        raise StageError(f"{who} was ended by {signal.Signals(-process.returncode).name}{ending}")
    if process.returncode:
        raise StageError(f"{who} ended with {process.returncode}{ending}")
    return last


def last_lines(text: str) -> str:
    """The last lines with something in them, in one and without colours."""
    lines = [line.strip() for line in COLORS.sub("", text).splitlines() if line.strip()]
    return " | ".join(lines[-LAST:])


def pools(threads: int) -> dict[str, str]:
    """Variables for pools of threads that a runtime does not set: what it loads may compute in one, too."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
