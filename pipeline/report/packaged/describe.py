"""model.json: what the model takes and gives, what was measured, where it comes from."""

from pathlib import Path
from typing import Any

from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.external_data import digest_of
from pipeline.measure.classes import class_name
from pipeline.measure.interface import Range, port, ports
from pipeline.model import Deployed, OnnxModel
from pipeline.records.parts.interface import Interface
from pipeline.records.parts.models import ModelRecord
from pipeline.records.record import Record

SCHEMA_VERSION = 1


def describe(record: Record, final: ModelRecord, graph: Path) -> dict[str, Any]:
    """What stands in model.json.

    `classifier` is null unless predictions are logits of classes; then it has the output and its labels in order.
    """
    ports = record.interface or interface_of(graph)
    figure_names = ("size_bytes", "payload_bytes", "params", "macs", "compression_ratio", "score", "retention", "drop")
    figures = final.model_dump(mode="json", include={*figure_names, "test_samples", "validation_score"})
    return {
        "schema_version": SCHEMA_VERSION,
        "name": record.config.get("name", record.run),
        "run": record.run,
        "file": "." if graph.is_dir() else graph.name,
        **ports.model_dump(mode="json", include={"inputs", "outputs", "labels", "preprocessing"}),
        "classifier": classifier(ports, final),
        "figures": {**figures, "verdict": record.verdict},
        "digests": {"model": digest_of(graph), "data": record.data},
        "versions": record.environment.get("versions", {}),
        "seed": record.seed,
        "started": record.started,
    }


def classifier(ports: Interface, final: ModelRecord) -> dict[str, Any] | None:
    """The output with the logits of classes, and the labels in order; None where predictions are something else.

    Classes are measured where predictions are logits (N, classes) and nowhere else, so that they are there tells it. A
    class without a name has its number.
    """
    scored = [port for port in ports.outputs if port.name == ports.scored]
    output, names = [*scored, *ports.outputs][0], ports.labels
    if not final.classes or len(output.shape) != 1:
        return None
    count = output.shape[0] if output.shape[0] > 0 else len(names)
    labels = [class_name(i, names) for i in range(count)]
    return {"output": output.name, "labels": labels} if labels else None


def interface_of(graph: Path) -> Interface:
    """Names, shapes and dtypes of a file's inputs and outputs, for a run that did not keep them; -1 is any length."""
    inputs, outputs = ports(deployed_at(graph))
    unseen = Range()
    return Interface(
        inputs=[port(value, unseen) for value in inputs], outputs=[port(value, unseen) for value in outputs]
    )


def deployed_at(file: Path) -> Deployed:
    """The deployed form of a file, or of a folder of several."""
    return Seq2SeqOnnx(file, {}) if file.is_dir() else OnnxModel(file, {})
