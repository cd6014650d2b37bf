"""Everything that is measured of one model, in the form in which it would be deployed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.measure import cost, size
from pipeline.measure.accuracy import Evaluation, compare
from pipeline.model import Model, OnnxModel
from pipeline.record import Measure
from pipeline.statistics import retention


@dataclass(frozen=True)
class Known:
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
    deployed: OnnxModel
    evaluation: Evaluation
    measure: Measure


def measure(
    deployed: OnnxModel,
    evaluation: Evaluation,
    *,
    baseline: Known | None,
    before: Known | None,
    logits: bool,
    seed: int,
) -> Measure:
    """The MEASURE of a record.

    Args:
        deployed: the file to deploy.
        evaluation: the model's scores on the test split.
        baseline: the reference; None for the reference itself.
        before: the model of the stage before.
        logits: whether predictions are logits.
        seed: of the bootstrap.
    """
    found: dict[str, Any] = {
        "size_bytes": size.size_bytes(deployed),
        "payload_bytes": size.payload_bytes(deployed),
        "params": cost.onnx_params(deployed),
        "macs": cost.onnx_macs(deployed),
        "score": float(evaluation.scores.mean()),
        "metrics": evaluation.metrics,
        "test_samples": len(evaluation.scores),
    }
    if baseline:
        found |= compare(evaluation, baseline.evaluation, logits=logits, seed=seed)
        found["compression_ratio"] = baseline.measure.size_bytes / found["size_bytes"]
    if before:
        found["retention_before"] = retention(evaluation.scores.numpy(), before.evaluation.scores.numpy(), seed)
    return Measure(**found)
