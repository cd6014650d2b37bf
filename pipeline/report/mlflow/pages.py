"""What MLflow's pages show of what is logged: their kind, their columns, short names, the data, and where they are.

MLflow opens an experiment as one of traces, and a table of runs without metrics, unless the address says otherwise: it
names the kind of page, and a view that is saved with the experiment.
"""

import json
import re
from pathlib import Path
from typing import Any

from pipeline.base.use import LENT
from pipeline.records.record import Record

LOCAL = "http://127.0.0.1:5000"
"""Where `mlflow ui` serves by default."""
VIEW = "shrinkline"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
NOTE = "mlflow.note.content"
ABOUT = """\
Models that `shrink` made smaller. A run is a chain of stages: its metrics are those of the last model, their curves \
have a step for each stage, and the runs below it are the baseline and the model after each stage. Retention is the \
score over the baseline's on the same test examples, with a 95 % interval; sizes are of the file to deploy.

Open the view **Compression** for the columns that matter.
"""
METRICS = ("retention", "compression_ratio", "size_bytes", "score", "macs", "params", "retention_low", "retention_high")
WIDTHS = {"attributes.`Run Name`": 230, "metrics.`compression_ratio`": 140, "attributes.`Dataset`": 180}
"""Of columns, in pixels; without them a name is cut after 17 characters."""
LONGEST = 12
"""Characters of a name before what tells runs of one name apart: MLflow's narrowest column shows 17 in all."""
_STAMP = re.compile(r"^\d{8}-\d{6}-")


def experiment_tags() -> dict[str, str]:
    """What an experiment says of its pages: models are trained in it, and in which columns to look at them."""
    columns = [*(f"metrics.`{name}`" for name in METRICS), "tags.`verdict`", "attributes.`Dataset`"]
    widths = dict.fromkeys(columns, 90) | WIDTHS
    order = ["attributes.`Run Name`", *columns]
    state = {"selectedColumns": columns, "columnOrder": order, "columnWidths": widths}
    view = {"name": "Compression", "createdAt": 1, "updatedAt": 1, "state": json.dumps(state)}
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": METRICS[0],
        VIEW_TAG: json.dumps(view),
    }


def link(server: str, experiment: str) -> str:
    """The address of an experiment's table of runs with those columns; `server` is where MLflow's pages are."""
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
    )


def short_name(folder: str) -> str:
    """The name of a run or comparison without its time, which has a column of its own, and short enough to differ."""
    name, _, mark = _STAMP.sub("", folder).rpartition("-")
    name = name.removesuffix("-compared")
    if not name or not _STAMP.match(folder):  # a folder that someone named
        return folder
    return f"{name if len(name) <= LONGEST else f'{name[: LONGEST - 1]}…'}-{mark}"


def data_inputs(record: Record) -> list[Any]:
    """The splits of a run as MLflow's data sets, each with what it was used for."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name, source = data_name(record), json.dumps({"tags": {"mlflow.source.name": _task(record)[0]}})
    counts: dict[str, Any] = record.data
    return [
        DatasetInput(
            Dataset(name, digest[:8], "code", source, profile=json.dumps({"num_rows": counts[split].get("examples")})),
            [InputTag("mlflow.data.context", split)],
        )
        for split, digest in record.split_digests.items()
        if split != "calibration"  # is a part of train
    ]


def data_name(record: Record) -> str:
    """What the data is called: the set of a hub, the folder of the file that reads it, the built-in task, or the run's.

    Of data that were given from Python the run's name is all that is known.
    """
    use, arguments = _task(record)
    if use.startswith(f"{LENT}:"):
        return str(record.config.get("name"))
    data = arguments.get("data") if isinstance(arguments, dict) else None
    if isinstance(data, str):
        return Path(data).stem or use
    folder = record.origin.folder if record.origin else ""
    return Path(folder).name or use if use.partition(":")[0].endswith(".py") else use


def note(folder: Path, record: Record, longest: int) -> str:
    """What is said of a run: its summary; of one that failed, where and why."""
    if record.failure:
        return f"Ended in {record.failure.where or 'the run'}: {record.failure.message}"[:longest]
    return capped_text(folder / "summary.md", longest)


def capped_text(file: Path, longest: int) -> str:
    """As many whole lines of a file as fit; nothing of one that is not there."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return text if len(text) <= longest else text[:longest].rpartition("\n")[0]


def _task(record: Record) -> tuple[str, Any]:
    """What makes a run's data: its `use:` and its arguments."""
    task = record.config.get("task")
    known = task if isinstance(task, dict) else {}
    return str(known.get("use", "data")), known.get("arguments")
