"""Data and a module that were given from Python -> the task that they make, as far as the targets tell it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn
from torch.utils.data import default_collate

from pipeline.base.batches import Outputs, as_inputs, scored
from pipeline.base.targets.labelling import Kind
from pipeline.base.targets.summary import TargetSummary
from pipeline.build.labelling import kind_of
from pipeline.build.live.data import split_of
from pipeline.errors import ConfigError, blame
from pipeline.model import call
from pipeline.task import Split, Task, classification, multi_label, regression, split_by_seed

SPLITS = ("train", "validation", "test")
OPTIONS = tuple(field.name for field in fields(Task) if field.name not in SPLITS)
"""What may be said of a task beside its data, by the names of `Task`."""

HELD_OUT = 0.1  # of train, as validation where there is none
LOOKED_AT = 64  # targets by which the kind is told

MADE_BY: Mapping[Kind, Callable[..., Task]] = {
    "single_label": classification,
    "dense": classification,
    "multi_label": multi_label,
    "regression": regression,
}


@dataclass(frozen=True)
class OfOutput:
    """A loss of predictions and targets, such as torch's, as a task's: of the output that is scored."""

    loss: Callable[[Any, Any], Tensor]
    output: str | None = None

    def __call__(self, outputs: Outputs, targets: Any) -> Tensor:
        """The loss, a scalar."""
        return self.loss(scored(outputs, self.output), targets)


def task_of(module: nn.Module | None, data: Mapping[str, Any], **options: Any) -> Task:
    """The task of these data.

    Args:
        module: what is trained on them; without one, whole numbers are classes and what others are must be said.
        data: `train`, `validation`, `test`, see `split_of`. Without validation a tenth of train is held out.
        options: as of `Task`; its `loss` is of (predictions, targets) here. What is not said follows from the targets.

    Raises:
        ConfigError: data are missing or of no known kind, or the targets do not tell what a good answer is.
    """
    is_held_out = data.get("validation") is None  # of what comes twice, one could be in train and one in validation
    splits = {"train": split_of("train", data.get("train"), may_repeat=not is_held_out)}
    splits["test"] = split_of("test", data.get("test"))
    if is_held_out:
        splits["train"], splits["validation"] = split_by_seed(splits["train"], [1 - HELD_OUT, HELD_OUT])
    else:
        splits["validation"] = split_of("validation", data["validation"])
    parts: Any = [splits[name] for name in SPLITS]
    if loss := options.get("loss"):
        if not callable(loss):
            raise ConfigError(f"it is a {type(loss).__name__}", where="loss", expected="loss(predictions, targets)")
        options["loss"] = OfOutput(loss, options.get("output"))
    if loss and options.get("score"):
        return Task(*parts, **options)
    kind: Any = options.get("target_kind") or _kind(module, splits["train"], options.get("output"))
    if kind not in MADE_BY:
        fix = "Give `loss=` and `score=`: loss(predictions, targets) -> scalar, score(predictions, targets) -> (N,)"
        raise ConfigError(f"the targets do not tell what a good answer is ({kind})", where="train", fix=fix)
    return MADE_BY[kind](*parts, **options)


def _kind(module: nn.Module | None, train: Split, output: str | None) -> str:
    """What the task is, by some targets and by what the module gives for two examples, or why that is not known."""
    if len(train) == 0:
        raise ConfigError("the train split is empty", where="train", expected="at least one example")
    facts = TargetSummary()
    for i in range(0, len(train), max(1, len(train) // LOOKED_AT)):
        facts.add(i, train[i][1])
    if facts.misfits:
        return f"a target is a {next(iter(facts.misfits))}"
    if module is None:
        return "single_label" if facts.whole and not facts.real else "they are real numbers"
    with blame(ConfigError, "the model on the first two examples of train"):
        inputs, targets = (train.collate or default_collate)([train[0], train[min(1, len(train) - 1)]])
        predictions = scored(call(module, as_inputs(inputs)), output)
    kind = kind_of(predictions.shape, targets.shape, facts, logits=False)
    shapes = f"the model gives {tuple(predictions.shape)} for targets {tuple(targets.shape)}"
    return shapes if kind == "other" else kind
