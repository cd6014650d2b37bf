"""What became of the accuracy of a model against the baseline's, in pairs: retention, flips, agreement, divergence."""

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.estimate import Estimate
from pipeline.base.targets.labelling import Labelling
from pipeline.measure.accuracy import Evaluation, joined
from pipeline.measure.statistics.means import drop, retention
from pipeline.measure.statistics.pairs import Scores, is_right_or_wrong, mcnemar_p, pairs
from pipeline.measure.statistics.resamples import metric_drop, metric_retention


def compare(model: Evaluation, baseline: Evaluation, *, labelling: Labelling | None, seed: int = 0) -> dict[str, Any]:
    """What became of the accuracy, in pairs, as fields of a record's MEASURE.

    Args:
        model, baseline: evaluated on the same examples in the same order.
        labelling: the task's where predictions are logits; else agreement is equality and there is no KL divergence.
        seed: of the bootstrap.
    """
    scores, baseline_scores = model.scores.numpy(), baseline.scores.numpy()
    retention_estimate = retention(scores, baseline_scores, seed)
    fields: dict[str, Any] = {
        "retention": retention_estimate,
        "retention_reason": None
        if retention_estimate
        else "scores are not on a ratio scale: not all, or too few, are above zero; see the drop",
        "drop": drop(scores, baseline_scores, seed),
        "agreement": agreement(model.predictions, baseline.predictions, labelling, model.targets),
        **_on_metrics(model.resampled, baseline.resampled),
    }
    if is_right_or_wrong(scores, baseline_scores):
        table = pairs(scores, baseline_scores)
        fields |= {"flips": {"lost": table.lost, "gained": table.gained}, "mcnemar_p": mcnemar_p(table)}
    if labelling:
        divergence = kl_divergence(baseline.predictions, model.predictions, labelling, model.targets)
    if labelling and len(divergence):
        fields |= {"kl_mean": float(divergence.mean()), "kl_p99": float(np.quantile(divergence.numpy(), 0.99))}
    return fields


def agreement(
    model: Tensor, baseline: Tensor, labelling: Labelling | None, targets: Tensor | None = None
) -> float | None:
    """Mean over examples of the share of positions that count on which both decide the same; see `agreeing`.

    None for real numbers that are no logits: equality means nothing there. None where nothing counts.
    """
    if labelling is None and model.is_floating_point():
        return None
    shares = agreeing(model, baseline, labelling, targets)
    return float(shares.mean()) if len(shares) else None


def agreeing(model: Tensor, baseline: Tensor, labelling: Labelling | None, targets: Tensor | None = None) -> Tensor:
    """Of each example the share of its positions on which both decide the same, (N,), of those where something counts.

    Logits decide by the best class of a position, pixel or token, and for or against each label. Other predictions are
    the same as a whole, or not; sequences of which one is longer are so where it has only -100 more, the usual `fill`.

    Args:
        model, baseline: predictions (N, ...) on the same examples.
        labelling: of logits; None where predictions are something else.
        targets: class numbers (N, ...), as an `Evaluation` has them: below zero a position does not count.
    """
    if labelling is None:
        if model.shape != baseline.shape:
            model, baseline = joined([model, baseline]).chunk(2)
        return (model == baseline).reshape(len(model), -1).all(1).double()
    same = labelling.logits(model).argmax(-1) == labelling.logits(baseline).argmax(-1)
    return _means(same.double(), targets)


def kl_divergence(baseline: Tensor, model: Tensor, labelling: Labelling, targets: Tensor | None = None) -> Tensor:
    """KL(softmax(baseline) || softmax(model)) in nats, the mean over an example's positions that count: (N,).

    Args:
        baseline, model: logits.
        labelling: where their classes are; each of several labels is a distribution of its own.
        targets: as in `agreeing`; examples of which nothing counts are left out.
    """
    log_p, log_q = (F.log_softmax(labelling.logits(x).double(), -1) for x in (baseline, model))
    return _means((log_p.exp() * (log_p - log_q)).sum(-1), targets)


def _means(values: Tensor, targets: Tensor | None) -> Tensor:
    """The mean (N,) of each example's values (N, ...) where targets are no less than zero; none without such."""
    flat = values.reshape(len(values), -1)
    if targets is None or targets.shape != values.shape:
        return flat.mean(1)
    counted = targets.reshape(flat.shape) >= 0
    sizes = counted.sum(1)
    return (flat * counted).sum(1)[sizes > 0] / sizes[sizes > 0]


def _on_metrics(metrics: dict[str, Scores], baseline: dict[str, Scores]) -> dict[str, dict[str, Estimate]]:
    """What became of each metric, in pairs."""
    pairs = {name: (metrics[name], baseline[name]) for name in metrics if name in baseline}
    retentions = {name: metric_retention(*pair) for name, pair in pairs.items()}
    return {
        "metrics_drop": {name: metric_drop(*pair) for name, pair in pairs.items()},
        "metrics_retention": {name: estimate for name, estimate in retentions.items() if estimate},
    }
