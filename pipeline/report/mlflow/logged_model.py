"""The last model of a run in MLflow's ONNX flavour, once, and where asked its version in the registry, once.

By hand and not with `mlflow.onnx.log_model`: that cannot be taken up again, gives the model the metrics of step 0, and
works with the process's current run and tracking URI, which are the caller's.
"""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from pipeline.base.files import scratch
from pipeline.records.parts.interface import Port
from pipeline.records.record import Record
from pipeline.report.mlflow.connection import UID, Connection, tagged


class Graph(NamedTuple):
    """What MLflow needs of a model in one ONNX file: where it is, and a small batch of what it takes, as arrays."""

    path: Path
    example: dict[str, Any]


def log_model(to: Connection, parent: str, record: Record, final: Graph) -> None:
    """Log it, and register it where the record says so."""
    from mlflow.entities import LoggedModelOutput

    logged_models = to.client.search_logged_models([to.experiment], filter_string=tagged(record.run))
    arguments: dict[str, Any] = {"name": "model", "source_run_id": parent, "tags": {UID: record.run}}
    model = logged_models[0] if logged_models else to.client.create_logged_model(to.experiment, **arguments)
    outputs = to.client.get_run(parent).outputs
    if model.model_id not in [output.model_id for output in (outputs and outputs.model_outputs) or []]:
        to.client.log_outputs(parent, [LoggedModelOutput(model.model_id, len(record.stages))])
    if str(model.status) != "READY":
        with tempfile.TemporaryDirectory(dir=scratch()) as folder:
            _write(Path(folder) / "model", record, final, model, parent)
            to.client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        to.client.finalize_logged_model(model.model_id, "READY")
    if record.register_as:
        _register(to, parent, record, record.register_as, model)


def _write(folder: Path, record: Record, final: Graph, model: Any, parent: str) -> None:
    """Write a model in MLflow's ONNX flavour."""
    import mlflow.onnx
    import onnx
    import onnxruntime

    arguments: dict[str, Any] = {"artifact_path": model.artifact_location, "run_id": parent}
    # The check reads the list of files of every package that is installed, and these versions are the installed ones.
    with patch("mlflow.utils.environment.warn_dependency_requirement_mismatches", create=True):
        mlflow.onnx.save_model(
            onnx.load(final.path),
            str(folder),
            mlflow_model=mlflow.models.Model(**arguments, model_id=model.model_id, model_uuid=model.model_id),
            signature=_signature(record),
            input_example=final.example,
            # Given, because inferring them loads the model in yet another process.
            pip_requirements=[f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}"],
            save_as_external_data=False,
        )


def _signature(record: Record) -> Any:
    """What goes in and comes out, with -1 where any length fits."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from numpy import dtype

    def schema(ports: list[Port]) -> Any:
        return Schema([TensorSpec(dtype(port.dtype), (-1, *port.shape), port.name) for port in ports])

    interface = record.interface
    return ModelSignature(schema(interface.inputs), schema(interface.outputs)) if interface else None


def _register(to: Connection, parent: str, record: Record, name: str, model: Any) -> None:
    from mlflow.exceptions import MlflowException

    try:
        to.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = to.client.search_model_versions(tagged(record.run))
    if not any(version.name == name for version in versions):
        # Its place and not models:/ID, which MLflow would look up at the process's current tracking URI.
        arguments: dict[str, Any] = {"run_id": parent, "model_id": model.model_id, "tags": {UID: record.run}}
        to.client.create_model_version(name, model.artifact_location, **arguments)
