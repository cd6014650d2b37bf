"""What a stage is, and what it is given."""

import logging
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import JsonValue
from torch import Tensor

from pipeline.base.batches import Inputs, Outputs
from pipeline.base.data.strict import Strict
from pipeline.base.estimate import Estimate
from pipeline.base.files import scratch
from pipeline.base.hardware import Isa
from pipeline.base.targets.labelling import Labelling
from pipeline.base.use import classes_in
from pipeline.base.world import ALONE, World
from pipeline.errors import ConfigError
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.graph import OPSET
from pipeline.model import Deployed, Model, OnnxModel, TorchModel
from pipeline.task import AsTarget, Augment, Forward, Split, Task

AnyForm = TypeVar("AnyForm", TorchModel, OnnxModel, Seq2SeqOnnx)
"""For a stage that takes every form and gives the same form back."""


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


class Stage(Strict, ABC):
    """One step of a chain. Its fields are its keys in the YAML; the annotations of `run` say what it takes and gives.

    `run` returns a new model and never changes the one it was given; returning that same object means that the stage
    only measured. What it raises as `StageError` reaches the user as it is.
    """

    distributed: ClassVar[bool] = False
    """Whether all processes run it together where there are several, as they must where it trains."""
    host_bound: ClassVar[bool] = False
    """Whether what it finds holds on this machine alone, as a latency does."""

    only_measures: ClassVar[bool] = False
    """Whether it gives back the model that came in, so that those behind it find what stood before it."""

    extra: ClassVar[str] = ""
    """The extra of the package that brings what it needs, where one does."""
    keeps_structure: ClassVar[bool] = False
    """Whether what it gives has the layers and shapes of what comes in, so that these are known before it runs."""
    narrows: ClassVar[bool] = False
    """Whether what it gives has the layers of what comes in, but smaller by what is only known when it runs."""

    quantizes: ClassVar[bool] = False
    """Whether weights of what it gives are rounded, so that nothing behind it may round them again."""

    packs: ClassVar[bool] = False
    """Whether it stores integers in as few bits as they need."""

    bisects_result: ClassVar[bool] = False
    """Whether `bisection` looks at what it gave and stands behind it; else it stands in its place."""

    def check(self, before: Sequence["Stage"], preview: Preview) -> Iterable[str]:
        """What the types cannot say: raise ConfigError for what cannot work, give warnings for what is suspicious.

        A `Note` among them is said in the plan and is no warning.
        """
        return ()

    def reach(self, model: Model, before: Sequence["Stage"] = ()) -> Iterable[str]:
        """What it would change, and what it would leave as it is, by name: notes and warnings, told before any work.

        Raise ConfigError where it could change nothing.

        Args:
            model: untrained, with the layers and operators of what will come in; where one of `before` narrows them,
                they are wider here.
            before: the stages before it.
        """
        return ()

    def outlook(self, model: Model, before: Sequence["Stage"], preview: Preview) -> Model | None:
        """An untrained model with the layers of what it gives; None where these are not known before it runs.

        Of a stage that exports, the model that it exports.

        Args:
            model: as in `reach`.
            before, preview: as in `check`.
        """
        return model if self.keeps_structure or self.host_bound or self.only_measures else None

    def sensitivity(self) -> Sequence[dict[str, JsonValue]]:
        """The entries of a chain that measure in its place how much the answers depend on each layer; none unless said.

        They have `use` and settings, as in a pipeline file; see `shrink sensitivity`.
        """
        return ()

    def bisection(self) -> Sequence[dict[str, JsonValue]]:
        """The entries of a chain that find, in its place, which layers cost the accuracy; none unless said.

        See `shrink bisect` and `bisects_result`.
        """
        return ()

    def exported_opset(self) -> int:
        """The ONNX operator set of what it exports, where it does."""
        return OPSET

    def chooses_by_answers(self) -> bool:
        """Whether what it gives depends on how models score or how fast they are, which elsewhere they are not."""
        return False

    def packable(self) -> bool:
        """Whether weights of what it gives may have so few values that a stage that packs takes bytes off them."""
        return False

    def trainings(self) -> Iterable[tuple[int, int]]:
        """For each training that it does its batch size, and in how many parts a process computes a batch."""
        return ()

    def taught_by_baseline(self, incoming: bool) -> bool:
        """Whether the baseline is its teacher, as reports then call it; `incoming` where that is what comes in."""
        return incoming

    def builds_on_incoming(self) -> bool:
        """Whether anything of the model that comes in is in what it gives; else all stages before it are in vain."""
        return True

    def builds_anew(self) -> bool:
        """Whether what it gives is built by code alone, so that nothing of what earlier stages changed is in it."""
        return False

    def timeable(self) -> bool:
        """Whether what it gives can be timed."""
        return True

    def timed_in(self) -> Sequence[Mapping[str, JsonValue]]:
        """Where each row of its latencies is measured: `runtime`, `threads`, `batch`, and `settings`, if any.

        A limit on another one is refused before work; of a stage that does not say, none is.
        """
        return ()

    def measure(self, models: Mapping[str, Model], ctx: Context) -> dict[str, JsonValue]:
        """For each model what is measured of it, all in turns; a `host_bound` stage has it, and `run` reports it.

        Strategies are compared so: what interleaves is comparable.
        """
        raise NotImplementedError

    @abstractmethod
    def run(self, model: Any, ctx: Context) -> Any:
        """The new model. Subclasses annotate `model` and the result with TorchModel, OnnxModel or AnyForm."""


def quantizing(before: Sequence[Stage]) -> Stage | None:
    """The last of the stages before that rounded the weights of what comes in; None where they are as trained."""
    for stage in reversed(before):
        if stage.quantizes or stage.builds_anew():
            return stage if stage.quantizes else None
    return None


def stage_class(module: Any) -> type[Stage]:
    """The one Stage that a module defines. Raises ConfigError when it defines none or several."""
    classes: list[type[Stage]] = classes_in(module, Stage)
    if len(classes) != 1:
        names = ", ".join(c.__name__ for c in classes) or "none"
        problem = f"the module defines {len(classes)} stages ({names})"
        raise ConfigError(problem, expected="exactly one subclass of Stage")
    return classes[0]
