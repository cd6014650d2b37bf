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
    on_validation = evaluation.validation_scores
    if on_validation is not None:  # not only the test split was looked at
        fields["validation_score"] = float(on_validation.mean())
        if reference and reference.validation_scores is not None:
            reference_scores = reference.validation_scores.numpy()
            fields["validation_retention"] = retention(on_validation.numpy(), reference_scores, seed)
    if baseline:
        fields |= compare(evaluation, baseline.evaluation, labelling=task.labelling if task.logits else None, seed=seed)
        fields["compression_ratio"] = baseline.measure.size_bytes / fields["size_bytes"]
    if before:
        fields["retention_before"] = retention(evaluation.scores.numpy(), before.evaluation.scores.numpy(), seed)
    return Measure(**fields)
