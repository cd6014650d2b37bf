"""Child processes that start warm and clean, for importing torch takes seconds.

They are forks of a server that has imported and done nothing else. What other tests have left in a test's own process,
such as threads and the locks that they hold, would go into a fork of it, which then waits for them for ever.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([
    "pytest", "accelerate", "mlflow", "onnxscript", "pipeline.cli.app", "pipeline.runner",
    "pipeline.run.distributed.worker", "stages.distill.logits", "stages.export.onnx", "stages.prune.channels",
    "stages.train.supervised", "torch.onnx._internal.exporter._core", "torch.onnx._internal.exporter._compat",
    "torch._dynamo", "torch._export",
])  # fmt: skip
PATIENCE = 120  # seconds until a test gives up; nothing is measured in them


def start(main: Callable[..., Any], *args: Any, **kwargs: Any) -> ForkServerProcess:
    """A child that does main(*args, **kwargs), in this process's environment; all of it is pickled on the way."""
    process = SERVER.Process(target=_begin, args=(dict(os.environ), main, args, kwargs))
    process.start()
    return process


def exit_code(main: Callable[..., Any], *args: Any, **kwargs: Any) -> int | None:
    """How a child ends that does main(*args, **kwargs): negative where a signal ended it."""
    child = start(main, *args, **kwargs)
    child.join(PATIENCE)
    return child.exitcode


def die(*_: Any) -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def _begin(environment: dict[str, str], main: Callable[..., Any], args: Any, kwargs: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    main(*args, **kwargs)


class Ended(NamedTuple):
    code: int | None
    err: str
    out: str


class Shrink:
    """A `shrink` command in a process group of its own, without MLflow.

    Args:
        folder: where what it writes to stdout and stderr goes.
        words: its arguments.
        prepare: what is called in its process before it begins.
    """

    def __init__(self, folder: Path, *words: str, prepare: Callable[[], Any] = int) -> None:
        self.err, self.out = folder / "stderr.txt", folder / "stdout.txt"
        self.err.unlink(missing_ok=True)
        self.process = start(_command, words, self.err, self.out, prepare)

    def send(self, number: int, *, group: bool = False) -> None:
        assert self.process.pid is not None
        (os.killpg if group else os.kill)(self.process.pid, number)

    def until(self, happened: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.is_alive(), self.said()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def said(self) -> str:
        return self.err.read_text() if self.err.exists() else ""

    def end(self) -> Ended:
        self.process.join(PATIENCE)
        return Ended(self.process.exitcode, self.said(), self.out.read_text())

    def group(self) -> list[int]:
        """The processes that are left of the command's group."""
        rows = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
        return [int(row[2]) for row in rows if int(row[2]) == self.process.pid and row[0] != "Z"]


def _command(words: tuple[str, ...], err: Path, out: Path, prepare: Callable[[], Any]) -> None:
    from pipeline import runner
    from pipeline.cli import app

    os.setpgid(0, 0)
    sys.argv = ["shrink", *words]
    runner.open_tracking = lambda *_, **__: nullcontext()  # type: ignore[assignment, attr-defined]
    prepare()
    with err.open("w", buffering=1) as sys.stderr, out.open("w") as sys.stdout:
        app.main()
