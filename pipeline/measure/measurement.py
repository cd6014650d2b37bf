"""Everything that is measured of one model, in the form in which it would be deployed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.measure import cost, size
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.agreement import compare
from pipeline.measure.classes import by_class
from pipeline.measure.statistics.means import retention
from pipeline.model import Deployed, Model
from pipeline.records.parts.models import Measure
from pipeline.task import Task


@dataclass(frozen=True)
class MeasuredModel:
    """A model with what has been found out about it, so that nothing is computed twice.

    Args:
        model: in the form in which it goes on.
        folder: where it is saved.
        measured: where its predictions are.
        key: of the measurement in the store.
        digest: of its files.
        deployed: the file to deploy.
        evaluation: on the test split.
        measure: as it stands in the record.
    """

    model: Model
    folder: Path
    measured: Path
    key: str
    digest: str
    deployed: Deployed
    evaluation: Evaluation
    measure: Measure


def measure(
    deployed: Deployed,
    evaluation: Evaluation,
    task: Task,
    *,
    baseline: MeasuredModel | None,
    before: MeasuredModel | None,
    seed: int,
) -> Measure:
    """The MEASURE of a record.

    Args:
        deployed: the file to deploy.
        evaluation: the model's scores on the test split, and on validation.
        task: its tokenizer, the names of its classes, and whether predictions are logits.
        baseline: the reference; None for the reference itself.
        before: the model of the stage before.
        seed: of the bootstrap.
    """
    macs, macs_reason = cost.counted_macs(deployed)
    fields: dict[str, Any] = {
        "size_bytes": size.size_bytes(deployed),
        "payload_bytes": size.payload_bytes(deployed),
        "tokenizer_bytes": size.tokenizer_bytes(deployed, task.tokenizer),
        "params": cost.onnx_params(deployed),
        "macs": macs,
        "macs_reason": macs_reason,
        "score": float(evaluation.scores.mean()),
        "metrics": evaluation.metrics,
        "test_samples": len(evaluation.scores),
        "batch": evaluation.batch,
    }
    reference = baseline.evaluation if baseline else None
    fields["classes"] = by_class(evaluation, reference, labels=task.labels, logits=task.logits, seed=seed)
    fields |= _on_validation(evaluation, reference, seed)
    if baseline:
        fields |= compare(evaluation, baseline.evaluation, labelling=task.labelling if task.logits else None, seed=seed)
        fields["compression_ratio"] = baseline.measure.size_bytes / fields["size_bytes"]
    if before:
        fields["retention_before"] = retention(evaluation.scores.numpy(), before.evaluation.scores.numpy(), seed)
    return Measure(**fields)


def _on_validation(evaluation: Evaluation, reference: Evaluation | None, seed: int) -> dict[str, Any]:
    """The figures that a choice among models is made on; none where the test split alone was looked at."""
    scores = evaluation.validation_scores
    if scores is None:
        return {}
    mean = {"validation_score": float(scores.mean())}
    if reference is None or reference.validation_scores is None:
        return mean
    return mean | {"validation_retention": retention(scores.numpy(), reference.validation_scores.numpy(), seed)}
