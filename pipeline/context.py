"""What a stage is given: the task, the place, and what it may ask for."""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor

from pipeline.base.batches import Inputs, Outputs
from pipeline.base.estimate import Estimate
from pipeline.base.files import scratch
from pipeline.base.hardware import Isa
from pipeline.base.targets.labelling import Labelling
from pipeline.base.world import ALONE, World
from pipeline.model import Deployed, Model, TorchModel
from pipeline.task import AsTarget, Augment, Forward, Split, Task


def _of_task(name: str) -> Any:
    return property(attrgetter(f"task.{name}"))


class HasTask:
    """Gives what `task` has by its own name too, `ctx.train` for `ctx.task.train`, and seals its test split."""

    train: Split = _of_task("train")
    calibration: Split = _of_task("calibration")
    validation: Split = _of_task("validation")
    loss: Callable[[Outputs, Any], Tensor] = _of_task("loss")
    decode: Callable[[Forward, Inputs], Tensor] = _of_task("decode")
    score: Callable[[Any, Any], Tensor] = _of_task("score")
    augment: Augment | None = _of_task("augment")
    logits: bool = _of_task("logits")
    labelling: Labelling = _of_task("labelling")
    output: str | None = _of_task("output")
    as_target: AsTarget | None = _of_task("as_target")
    tokenizer: Any = _of_task("tokenizer")

    task: Task

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", self.task.sealed())


Predict = Callable[[Iterable[Inputs]], Iterator[Outputs]]
"""Gives the outputs for batches of inputs, one after the other, and asks for these as it needs them."""


@dataclass(frozen=True)
class Scored:
    """How a model scores where it runs otherwise than where it was measured, in pairs with what it gave there.

    Args:
        value, validation: the mean scores on the test and validation splits; None where there was none before.
        retention, validation_retention: of the baseline's own score; None where a ratio means nothing.
        drop: of the test score below the one that was measured.
        lost, gained: how many test examples are no longer right, and how many are right now; None for scores that are
            not right or wrong.
        changed: share of the test examples with another decision; None where predictions are no decisions.
        difference: the largest between predictions that are no decisions, as a share of their range; else None.
        worst: the place in the test split of the example that lost most; None where none lost.
        keeps_budget: whether the budget's limits on retention and drop are kept; None where there is none to look at.
    """

    value: float
    validation: float | None
    retention: Estimate | None
    validation_retention: Estimate | None
    drop: Estimate
    lost: int | None
    gained: int | None
    changed: float | None
    difference: float | None
    worst: int | None
    keeps_budget: bool | None


@dataclass(frozen=True)
class Preview(HasTask):
    """What is known before anything runs: enough to refuse or to warn, nothing to train on.

    Args:
        model: the untrained or loaded model at the start of the chain.
        task: the task; its test split can be counted and not read.
        in_baseline: whether the stage is one that makes the baseline, so that there is none yet.
        isa: of the CPUs that the last file is for; None for this one.
    """

    model: Model
    task: Task
    in_baseline: bool = False
    isa: Isa | None = None


def make_anew(what: str, model: Model, parts: dict[str, JsonValue], make: Callable[[Path], None]) -> Path:
    """The folder that make(folder) has filled, where there is no store: it goes when the process ends."""
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    make(folder)
    return folder


@dataclass(frozen=True)
class Context(HasTask):
    """What a stage is given beside the model. No test data: a stage cannot peek.

    Args:
        task: the splits, the loss and the rest; its test split can be counted and not read.
        baseline: the reference model, None while it is being made.
        directory: a folder of this stage's own for what it writes.
        device: where to compute.
        seed: already set everywhere; for what needs one of its own.
        log: goes to the terminal and the run's log file.
        progress: progress(description, total) is a context manager that gives advance(steps, note).
        warn: a warning that the record and the report repeat; a `Note` is no warning.
        report: report(name, JSON) keeps what the stage measured beside the model, in the record.
        deployed: the ONNX file that a model would be deployed as, made once a model; not to be changed. A form that
            is deployed already is its own.
        interrupted: whether a long stage should keep what it needs to go on, in `directory`, and raise Interruption.
            Where it was stopped or killed, it is given that directory again.
        world: the processes that run this stage together; more than one for a `distributed` stage alone.
        kept: kept(what, model, parts, make) -> folder that make(folder) has filled, once for all runs; the parts are
            what it depends on beside the model, the training data, the task and the code of the file that `make` is in.
        compare: compare(name, model) has a model measured on the test split beside the one that the stage gives.
        batch: examples that the deployed model is given at a time, as the file says; None where it does not.
        scored: scored(model, predict) -> how a model that was measured before scores on test and validation where
            `predict` answers, or why that is not to be had; without `predict` it answers as it did. That is no look at
            the test split to choose by: the model stays the same.
    """

    task: Task
    baseline: Model | None
    directory: Path
    device: torch.device
    seed: int
    log: logging.Logger
    progress: Callable[[str, int], AbstractContextManager[Callable[..., None]]]
    report: Callable[[str, JsonValue], None]
    deployed: Callable[[Model], Deployed]
    interrupted: Callable[[], bool] = lambda: False
    warn: Callable[[str], None] = logging.getLogger("shrinkline").warning
    world: World = ALONE
    batch: int | None = None
    kept: Callable[[str, Model, dict[str, JsonValue], Callable[[Path], None]], Path] = make_anew
    compare: Callable[[str, TorchModel], None] = lambda name, model: None
    scored: Callable[[Model, Predict | None], Scored | str] = lambda model, predict: "no test examples are here"
