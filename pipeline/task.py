"""What the user brings: data in four splits, a loss, a way to decode and to score. The model is its own key."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from pipeline.base.batches import Augment as Augment
from pipeline.base.batches import Axes, Inputs, Outputs
from pipeline.base.batches import Batch as Batch
from pipeline.base.batches import scored as scored
from pipeline.base.data.split import Sealed as Sealed
from pipeline.base.data.split import Split as Split
from pipeline.base.data.split import sample as sample
from pipeline.base.data.split import split_by_seed as split_by_seed
from pipeline.base.targets.labelling import IGNORED, Kind, Labelling
from pipeline.base.targets.losses import binary_cross_entropy as binary_cross_entropy
from pipeline.base.targets.losses import correct as correct
from pipeline.base.targets.losses import cross_entropy as cross_entropy
from pipeline.base.targets.losses import jaccard as jaccard
from pipeline.base.targets.losses import minus_squared_error as minus_squared_error
from pipeline.base.targets.losses import squared_error as squared_error
from pipeline.base.targets.metric import Metric as Metric
from pipeline.errors import ConfigError

Forward = Callable[[Inputs], Outputs]
Show = Callable[[Inputs], Tensor | str]
AsTarget = Callable[[Inputs, Tensor], tuple[Inputs, Any]]

CALIBRATION_EXAMPLES = 512


@dataclass(frozen=True)
class Output:
    """The default way to decode: the output of that name, or the first one."""

    name: str | None = None

    def __call__(self, forward: Forward, inputs: Inputs) -> Tensor:
        """What the model gives there."""
        return scored(forward(inputs), self.name)


first_output = Output()


OURS: tuple[tuple[Callable[..., Tensor], tuple[str, ...]], ...] = (
    (cross_entropy, ("output", "axis", "ignore_index")),
    (binary_cross_entropy, ("output", "ignore_index")),
    (correct, ("axis", "ignore_index")),
    (jaccard, ("ignore_index",)),
    (squared_error, ("output",)),
)
"""Our losses and scores, and what each is told of what a task says of its targets."""


def taken_by(function: Any) -> tuple[str, ...]:
    """What a loss or score of ours is told by the task; nothing for one of the user's."""
    return next((names for ours, names in OURS if ours is getattr(function, "func", function)), ())


HIGHEST = ((correct, 1), (jaccard, 1), (minus_squared_error, 0))
"""Our scores, and the best that each can be."""


@dataclass(frozen=True)
class Task:
    """The data and what is good.

    Args:
        train, validation, test: what trains, chooses, reports.
        loss: (outputs, targets) -> scalar, differentiable.
        score: (predictions, targets) -> (N,), per example, higher is better; right or wrong is 1.0 or 0.0.
        calibration: part of train; by default a fixed random sample of it.
        decode: (forward, inputs) -> predictions (N, ...); the model's `output` unless given.
        metrics: name -> f(predictions, targets) -> float over the whole split: F1, Spearman, BLEU, as there are in
            `pipeline.tasks.metrics`; see `Metric` for slow ones. Predictions and targets of the whole split are held in
            memory for them: where these are logits over many tokens, let `decode` give what the metric needs.
        augment: (inputs of one example, seed, view) -> inputs; used on train only. The view is the epoch, or one of a
            few that come round again where a teacher's logits on them are kept.
        logits: predictions are unnormalized scores over classes, or of labels, so that agreement is of the best class
            and KL divergence means something.
        as_target: (inputs of one example, tokens (T,)) -> the training example (inputs, target) that has these tokens
            as its target; distillation of sequences needs it.
        labels: names of the classes, in the order of their numbers.
        preprocessing: how what the model is fed is made, for whoever deploys it: "grey pixels / 16, as (1, 8, 8)".
        show: (inputs of one example) -> what a report shows of it: text, or an image (1 or 3, H, W) from 0 to 1. Inputs
            that are such images already, and curves, need none.
        output: name of the output that is scored and trained on, the logits, unless `decode` and `loss` look at others;
            all models of a chain, teachers too, give it. The first output unless given.
        axes: input -> {axis: name} of the axes beside the batch whose length varies from batch to batch, such as
            {"input_ids": {1: "tokens"}, "attention_mask": {1: "tokens"}}; equal names are equal lengths. The exported
            file takes any length there. `collate` may then pad each batch to its own longest example.
        fill: what pads predictions and targets of batches of other lengths before they are joined for metrics.
        tokenizer: the fast tokenizer of transformers that made the inputs, where there is one.
        target_kind: single_label, multi_label, dense, regression or other; told by the targets and by what the model
            gives, unless said. It decides what a distillation compares, and what agreement and KL divergence are of.
        class_axis: of the logits, where the classes are; told by the shape of the targets unless said.
        ignore_index: the target that does not count, in our losses and scores, in agreement, KL divergence and
            distillation; examples of test and validation of which nothing counts are left out.
    """

    train: Split
    validation: Split
    test: Split
    loss: Callable[[Outputs, Any], Tensor]
    score: Callable[[Any, Any], Tensor]
    calibration: Split = None  # type: ignore[assignment]  # filled in below; optional for whoever makes a task
    decode: Callable[[Forward, Inputs], Tensor] = first_output
    metrics: Mapping[str, Callable[[Any, Any], float]] = field(default_factory=dict)
    augment: Augment | None = None
    logits: bool = False
    as_target: AsTarget | None = None
    labels: Sequence[str] = ()
    preprocessing: str = ""
    show: Show | None = None
    output: str | None = None
    axes: Axes = field(default_factory=dict)
    fill: int = -100
    tokenizer: Any = None
    target_kind: Kind | None = None
    class_axis: int | None = None
    ignore_index: int = IGNORED

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            if not isinstance(split := getattr(self, name), Split):
                problem = f"`{name}` is a {type(split).__name__}"
                raise ConfigError(problem, where="task", expected="a pipeline.task.Split", fix="Write Split(dataset)")
        for name in {name for by_axis in self.axes.values() for name in by_axis.values()}:
            if not name.isidentifier() or name == "batch":
                expected = "a word of letters, digits and _, and not `batch`, which is the first axis"
                raise ConfigError(f"`axes` has the name `{name}`", where="task", expected=expected)
        if self.output and isinstance(self.decode, Output):
            object.__setattr__(self, "decode", Output(self.output))
        for name in ("loss", "score"):
            object.__setattr__(self, name, self._informed(getattr(self, name)))
        if self.calibration is None:
            object.__setattr__(self, "calibration", sample(self.train, CALIBRATION_EXAMPLES))

    def _informed(self, function: Any) -> Any:
        """A loss or score, told what the task says of its targets where it is one of ours."""
        said = {"output": self.output, "axis": self.class_axis, "ignore_index": self.ignore_index}
        inner = getattr(function, "func", function)
        options = {name: said[name] for name in taken_by(inner) if said[name] not in (None, IGNORED)}
        return partial(inner, **{**getattr(function, "keywords", {}), **options}) if options else function

    @property
    def labelling(self) -> Labelling:
        """What follows from the kind of the task."""
        axis = -1 if self.class_axis is None else self.class_axis
        return Labelling(self.target_kind or ("single_label" if self.logits else "other"), axis, self.ignore_index)

    @property
    def splits(self) -> dict[str, Split]:
        """The four splits by name."""
        return {name: getattr(self, name) for name in ("train", "calibration", "validation", "test")}

    def sealed(self) -> "Task":
        """The task as a stage sees it: its test split can be counted and not read."""
        return replace(self, test=Split(Sealed(len(self.test))))


def highest(score: Any) -> int | None:
    """The best that a score of ours can be; None for one of the user's."""
    return next((best for ours, best in HIGHEST if ours is getattr(score, "func", score)), None)


def classification(train: Split, validation: Split, test: Split, **rest: Any) -> Task:
    """A task of one class an example, or at each position: cross-entropy on logits, right or wrong.

    Of positions, as pixels (N, classes, H, W) or tokens (N, T, classes), the score is the share that is right.
    """
    return Task(train, validation, test, **{"loss": cross_entropy, "score": correct, "logits": True, **rest})


def multi_label(train: Split, validation: Split, test: Split, **rest: Any) -> Task:
    """A task of any number of labels an example: binary cross-entropy on logits (N, labels), the Jaccard index.

    Targets are 0 and 1, (N, labels); (N,) or (N, 1) of a single label, on an output (N,) or (N, 1).
    """
    own = {"loss": binary_cross_entropy, "score": jaccard, "target_kind": "multi_label", "logits": True}
    return Task(train, validation, test, **{**own, **rest})


def regression(train: Split, validation: Split, test: Split, **rest: Any) -> Task:
    """A task of real numbers, (N,) or (N, ...): the mean squared error is the loss, an example's negative the score.

    That is no ratio scale: there is no retention. A budget limits `drop` or `score`, in squared units of the targets.
    """
    own = {"loss": squared_error, "score": minus_squared_error, "target_kind": "regression"}
    return Task(train, validation, test, **{**own, **rest})


def kind(value: Any) -> str:
    """What a value is, for messages: "a tensor of shape (3, 10)", "a float"."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
