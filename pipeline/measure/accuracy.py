"""Score, retention and flips: one evaluation path for every form of a model, a score per example."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import StageError, blame
from pipeline.model import Model
from pipeline.statistics import Estimate, drop, is_right_or_wrong, mcnemar_p, metric_interval, pairs, retention
from pipeline.task import Forward, Split, Task, kind

BATCH_SIZE = 256


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions (N, ...) and scores (N,) on a split, and metrics over the whole of it.

    `targets` (N,) are there where they are class numbers, `validation_scores` (M,) where validation was looked at too.
    """

    predictions: Tensor
    scores: Tensor
    metrics: dict[str, Estimate] = field(default_factory=dict)
    targets: Tensor | None = None
    validation_scores: Tensor | None = None

    def save(self, path: Path) -> None:
        """Keep all but the metrics, so that any two models can be compared in pairs later."""
        kept = {"predictions": self.predictions, "scores": self.scores, "targets": self.targets}
        kept |= {"validation_scores": self.validation_scores}
        save_file({name: value.contiguous() for name, value in kept.items() if value is not None}, path)

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """What `save` wrote; one of an earlier version has predictions and scores alone."""
        kept = load_file(path)
        targets, on_validation = kept.get("targets"), kept.get("validation_scores")
        return cls(kept["predictions"], kept["scores"], targets=targets, validation_scores=on_validation)


def evaluate(
    model: Model,
    split: Split,
    *,
    decode: Callable[[Forward, Any], Tensor],
    score: Callable[[Any, Any], Tensor],
    metrics: dict[str, Callable[[Any, Any], float]] | None = None,
    advance: Callable[..., None] = lambda steps: None,
) -> Evaluation:
    """Run a model over a split in order.

    Raises:
        StageError: predictions hold NaN, or the scores are not one finite number an example.
    """
    predictions, scores, targets = [], [], []
    for batch in split.loader(BATCH_SIZE):
        with blame(StageError, "the task's decode or score"):
            predicted = decode(model.predict, batch.inputs)
            scored = score(predicted, batch.targets)
        _check(predicted, scored, len(batch.index))
        predictions.append(predicted.cpu())
        scores.append(scored.cpu().double())
        if metrics or _are_classes(batch.targets):  # others are not needed all at once
            targets.append(batch.targets)
        advance(1)
    classes = torch.cat(targets).cpu().long() if targets and all(map(_are_classes, targets)) else None
    found = Evaluation(torch.cat(predictions), torch.cat(scores), targets=classes)
    estimates = {}
    for name, function in (metrics or {}).items():
        with blame(StageError, f"the task's metric `{name}`"):
            estimates[name] = _metric(function, found, torch.cat(targets))
        if not np.isfinite(estimates[name].value):
            raise StageError(f"the task's metric `{name}` is {estimates[name].value}", expected="a finite number")
    return replace(found, metrics=estimates)


def evaluate_task(
    model: Model, task: Task, split: Split, advance: Callable[..., None] = lambda steps: None
) -> Evaluation:
    """`evaluate` with everything that the task says."""
    return evaluate(model, split, decode=task.decode, score=task.score, metrics=dict(task.metrics), advance=advance)


def examine_task(model: Model, task: Task, advance: Callable[..., None] = lambda steps: None) -> Evaluation:
    """The evaluation on the test split, with the scores on validation."""
    found = evaluate_task(model, task, task.test, advance)
    with blame(StageError, "validation"):
        chosen_on = evaluate(model, task.validation, decode=task.decode, score=task.score, advance=advance)
    return replace(found, validation_scores=chosen_on.scores)


def mean_score(model: Model, split: Split, *, decode: Callable[..., Tensor], score: Callable[..., Tensor]) -> float:
    """The mean score on a split."""
    return float(evaluate(model, split, decode=decode, score=score).scores.mean())


def compare(model: Evaluation, baseline: Evaluation, *, logits: bool, seed: int = 0) -> dict[str, Any]:
    """What became of the accuracy, in pairs, as fields of a record's MEASURE.

    Args:
        model, baseline: evaluated on the same examples in the same order.
        logits: whether predictions are logits; else agreement is equality and there is no KL divergence.
        seed: of the bootstrap.
    """
    ours, theirs = model.scores.numpy(), baseline.scores.numpy()
    kept = retention(ours, theirs, seed)
    found: dict[str, Any] = {
        "retention": kept,
        "retention_reason": None if kept else "scores are not on a ratio scale: not all above zero; see the drop",
        "drop": drop(ours, theirs, seed),
        "agreement": agreement(model.predictions, baseline.predictions, logits),
    }
    if is_right_or_wrong(ours, theirs):
        table = pairs(ours, theirs)
        found |= {"flips": {"lost": table.lost, "gained": table.gained}, "mcnemar_p": mcnemar_p(table)}
    if logits:
        divergence = kl_divergence(baseline.predictions, model.predictions)
        found |= {"kl_mean": float(divergence.mean()), "kl_p99": float(np.quantile(divergence.numpy(), 0.99))}
    return found


def agreement(model: Tensor, baseline: Tensor, logits: bool) -> float | None:
    """Share of examples on which both decide the same: the best class of logits (N, ..., classes), else the value.

    None for real numbers that are no logits: equality means nothing there.
    """
    if not logits and model.is_floating_point():
        return None
    same = model.argmax(-1) == baseline.argmax(-1) if logits else model == baseline
    return float(same.reshape(len(same), -1).all(1).double().mean())


def kl_divergence(baseline: Tensor, model: Tensor) -> Tensor:
    """KL(softmax(baseline) || softmax(model)) in nats, (N,); inputs are logits (N, ..., classes)."""
    log_p, log_q = (F.log_softmax(x.double(), -1) for x in (baseline, model))
    return (log_p.exp() * (log_p - log_q)).sum(-1).reshape(len(log_p), -1).mean(1)


def _check(predicted: Any, scored: Any, size: int) -> None:
    if not isinstance(predicted, Tensor) or predicted.shape[:1] != (size,):
        raise StageError(f"decode gave {kind(predicted)}", expected=f"a tensor ({size}, ...), one an example")
    if predicted.is_floating_point() and not torch.isfinite(predicted).all():
        raise StageError("the model's predictions are not finite", expected="no NaN and no infinity")
    if not isinstance(scored, Tensor) or scored.shape != (size,) or not torch.isfinite(scored).all():
        raise StageError(f"score gave {kind(scored)}", expected=f"finite numbers of shape ({size},), one an example")


def _are_classes(targets: Any) -> bool:
    """Whether targets are class numbers (N,)."""
    whole = isinstance(targets, Tensor) and not (targets.is_floating_point() or targets.is_complex())
    return whole and targets.ndim == 1 and targets.dtype is not torch.bool


def _metric(function: Callable[[Any, Any], float], found: Evaluation, targets: Tensor) -> Estimate:
    def at(positions: NDArray[np.intp]) -> float:
        chosen = torch.from_numpy(positions)
        return float(function(found.predictions[chosen], targets[chosen]))

    return metric_interval(at, len(targets))
