"""The process that logs a run to MLflow while the run goes on; `following` is the other end of its pipes.

It reads a line of JSON for each thing to do, the first names the run folder, and takes the record from there. Each is
answered with the problem that MLflow has, empty where there is none; what is logged on the way goes back too. Where
the pipe closes without an `end`, the run has died. It imports no torch.
"""

import json
import logging
import os
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors.numpy import load

from pipeline.base.files import locked
from pipeline.base.quiet import leave_garbage, uncollected
from pipeline.records.record import Record
from pipeline.report.mlflow.address import without_secrets
from pipeline.report.mlflow.connection import settings
from pipeline.report.mlflow.logged_model import Graph
from pipeline.report.mlflow.run import LOCK, Tracking, status_of

LOG = logging.getLogger("shrinkline")

MODULES = (  # MLflow imports some of them where it uses them; here the run imports torch meanwhile, or builds
    "mlflow.onnx",
    "mlflow.pyfunc.loaders",
    "onnx",
    "onnxruntime",
    "alembic.command",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
)


class Answers(logging.Handler):
    """The pipe back, for answers and for what is logged."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on what is logged."""
        self.send(level=record.levelno, text=record.getMessage())

    def send(self, **answer: Any) -> None:
        """Write a line, which a run that has died does not read any more."""
        with suppress(BrokenPipeError):
            os.write(self.descriptor, json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Import MLflow, then do what is asked until the end."""
    leave_garbage()
    answers = Answers(os.dup(1))
    sys.excepthook = _in_one_line
    os.dup2(2, 1)  # whatever a library prints is no answer
    LOG.addHandler(answers)
    LOG.propagate = False
    with uncollected(), settings():
        for name in MODULES:
            with suppress(ImportError):  # of what is missing Tracking tells
                import_module(name)
    requests = (json.loads(line) for line in sys.stdin if line.endswith("\n"))  # a torn one is the run's last
    if opening := next(requests, None):
        answers.send(problem=_follow(Path(opening["folder"]), requests, answers))


def _follow(folder: Path, requests: Iterator[dict[str, Any]], answers: Answers) -> str:
    """Log one run; gives the problem at its end."""
    with locked(folder / LOCK):
        tracking = Tracking(Record.load(folder), folder.parent)
        answers.send(problem=tracking.to.problem)
        for request in requests:
            record = Record.load(folder)
            if request["do"] == "end":
                tracking.end(record, request["status"], whole=request["whole"])
                break
            if request["do"] == "finish":
                tracking.finish(record, _graph(request["final"]))
            else:
                tracking.update(record)
            answers.send(problem=tracking.to.problem)
        else:
            record = Record.load(folder)
            tracking.end(record, status_of(record, done=False), whole=False)
    return tracking.to.problem


def _graph(final: dict[str, str] | None) -> Graph | None:
    return Graph(Path(final["path"]), load(b64decode(final["example"]))) if final else None


def _in_one_line(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """What ends this process, without what lets one into a server."""
    sys.stderr.write(without_secrets(f"MLflow: {kind.__name__}: {error}\n"))


if __name__ == "__main__":
    main()
