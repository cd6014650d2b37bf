"""Who does the steps of quantization: this process, for a graph of ours; one of its own, for a file from outside."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from typing import Any
from unittest.mock import patch

from pipeline.errors import ForeignError, StageError
from pipeline.forms.sandbox.check import check
from pipeline.forms.sandbox.frames import Arrays
from pipeline.forms.sandbox.process import Process
from pipeline.model import OnnxModel
from stages.quantize.quantizing.calibration_data import CalibrationData
from stages.quantize.steps.do import do
from stages.quantize.steps.files import Done, Files


@dataclass(frozen=True)
class Work:
    """What to do to a graph.

    Args:
        step: name of a file of `steps` and of its function.
        settings: its arguments; JSON, for a file from outside.
        batches: calibration data, name -> array (B, ...); read one by one.
        count: how many there are.
    """

    step: str
    settings: dict[str, Any] = field(default_factory=dict)
    batches: Iterator[Arrays] = field(default_factory=lambda: iter(()))
    count: int = 0


Do = Callable[[Work, Files], Done]
"""(work, the graph's file and the one to write) -> what is said of it."""


@contextmanager
def worker(model: OnnxModel) -> Iterator[Do]:
    """What does the work on a model.

    Raises:
        ConfigError: a file from outside did not pass the check, before the work or after it.
        ForeignError: it crashed its process.
        StageError: a library refuses a file from outside; for ours its own error is raised.
    """
    if model.outside is None:
        yield _here
        return
    with closing(Process(model.path, "stages.quantize.quantizing.child", "quantizes", model.outside.limits)) as process:
        yield partial(_there, process)


def _here(work: Work, files: Files) -> Done:
    data = CalibrationData(work.batches, work.count)
    with _quiet():
        return do(work.step, files, work.settings, data)


def _there(process: Process, work: Work, files: Files) -> Done:
    paths = {"source": str(files.source.absolute()), "target": str(files.target.absolute()), "external": files.external}
    answer = _ask(process, {**paths, "step": work.step, "settings": work.settings, "batches": work.count}, {})
    for batch in work.batches:
        if answer.get("done"):
            break
        answer = _ask(process, {}, batch)
    if not answer.get("done"):
        raise ForeignError(f"it asks for more than {work.count} batches", where=f"model {process.path}")
    check(files.target)
    left = {str(why): [str(name) for name in names] for why, names in answer.get("left", {}).items()}
    return Done(left, [dict(entry) for entry in answer.get("layers", [])])


def _ask(process: Process, head: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """What it says: that the work is done, or that the next batch is wanted."""
    try:
        return process.ask(head, arrays)[0]
    except RuntimeError as error:  # what a library said there
        raise StageError(str(error).rstrip(".")) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the quantizers print, and without their warnings on the root logger."""
    root = logging.getLogger()
    handlers = [*root.handlers, logging.NullHandler()]  # with none, `logging.warning` would install one for good
    unheard = patch.multiple(root, handlers=handlers, filters=[lambda _: False])
    with unheard, redirect_stdout(StringIO()):
        yield
