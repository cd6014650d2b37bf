"""What the record says of a result, where it lies, and what is to be warned of; and a run folder, read back."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from pipeline.base.files import file_digest
from pipeline.build.config import PipelineConfig
from pipeline.build.syntax.validate import validate
from pipeline.errors import ConfigError, StageError, blame
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.classes import doubt
from pipeline.measure.measurement import MeasuredModel
from pipeline.measure.statistics.means import retention
from pipeline.model import Deployed
from pipeline.records.folder import JOURNAL, RECORD, load_events, load_run, verified
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import Comparison, StageRecord
from pipeline.records.record import Record
from pipeline.run.measuring import PREDICTIONS
from pipeline.run.result import Result
from pipeline.stage import Stage
from pipeline.task import Task

LATENCY = "A report named `latency` is a list of dictionaries"


def recorded(folder: Path) -> tuple[Record, list[Any], PipelineConfig]:
    """What a run folder holds: its record, the events of its journal, and the config, whose code it names.

    Raises:
        ConfigError: it is no run folder, or is damaged.
    """
    expected = f"a {JOURNAL} and a {RECORD}"
    record = load_run(folder, ended=False, expected=expected)
    events = load_events(folder)
    starts = [event for event in events if event["event"] == "start" and event.get("folder")]
    if not starts:
        raise ConfigError("this is no run folder", where=str(folder), expected=expected)
    code = Path(starts[0]["folder"])
    with blame(ConfigError, str(folder / RECORD)):
        return record, events, validate(PipelineConfig, {**record.config, "folder": code}, None, (), code)


def now() -> str:
    """The time in UTC, as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def located(run: Path, model: MeasuredModel, result: Result, keys: Sequence[str | None] = ()) -> dict[str, Any]:
    """Where a model lies, relative to the run folder, and how it came there; `keys` are of what else it rests on."""
    return {
        "seconds": round(result.seconds, 3),
        "cached": result.cached,
        "key": result.key,
        "uses": [key for key in dict.fromkeys((*keys, *result.uses, result.key, model.key)) if key],
        "form": model.model.form,
        "folder": str(model.folder.relative_to(run)),
        "file": str(model.deployed.path.relative_to(run)),
        "digest": model.digest,
        "predictions": str((model.measured / PREDICTIONS).relative_to(run)),
        "digests": _digests(run, model.deployed, model.measured / PREDICTIONS),
    }


def comparison(run: Path, result: Result, deployed: Deployed, evaluation: Evaluation, key: str) -> Comparison:
    """A model that was measured beside a stage's own."""
    predictions = result.folder.parent / PREDICTIONS
    return Comparison(
        score=float(evaluation.scores.mean()),
        folder=str(result.folder.relative_to(run)),
        file=str(deployed.path.relative_to(run)),
        predictions=str(predictions.relative_to(run)),
        digest=result.digest,
        digests=_digests(run, deployed, predictions),
        key=key,
    )


def _digests(run: Path, deployed: Deployed, predictions: Path) -> dict[str, str]:
    return {str(file.relative_to(run)): file_digest(file) for file in (*deployed.files(), predictions)}


def remarks(stage: Stage, result: Result, model: MeasuredModel, before: ModelRecord | None) -> Iterator[str]:
    """What is to be warned of beside what the stage warns of itself: a larger file, figures of an earlier run."""
    if before and model.measure.size_bytes > before.size_bytes:
        grown = f"from {before.size_bytes:,} to {model.measure.size_bytes:,} bytes"
        yield f"it made the file to deploy larger, {grown}"
    if model.measure.macs_reason and not (before and before.macs_reason == model.measure.macs_reason):
        yield model.measure.macs_reason
    if result.cached and stage.host_bound:
        yield "its figures are those of an earlier run on this machine"


def doubts(task: Task, record: Record, baseline: MeasuredModel | None, last: MeasuredModel) -> Iterator[str]:
    """What is to be warned of a last model that the budget, if any, lets pass though it can hardly be of use."""
    if not baseline or record.verdict not in ("pass", None):
        return
    labelling = task.labelling if task.logits else None
    if text := doubt(last.evaluation, baseline.evaluation, labelling, task.labels):
        passing = "the budget is kept, but " if record.verdict else "the last model: "
        yield f"{passing}{text}. Look at the baseline's score, the labels and the task's `score`"


def latency_record(
    record: Record, position: int, name: str, settings: dict[str, JsonValue], rows: JsonValue, seconds: float
) -> StageRecord:
    """The record of a `host_bound` stage that was left out of a run, made of what was measured afterwards.

    Args:
        record: of the run; the model before the position is the one that was measured.
        position: of the stage in the config.
        name: what it is called there, such as "benchmark.latency".
        settings: its own, resolved.
        rows: what it measured of the model, a list of dictionaries.
        seconds: that measuring them took.

    Raises:
        StageError: there is no model before the position, or the rows are something else.
    """
    before = [*([record.baseline] if record.baseline else []), *(s for s in record.stages if s.position < position)]
    place = f"stages[{position}] ({name})"
    if not before:
        raise StageError("the run has no measured model", where=place)
    fields = {field: getattr(before[-1], field) for field in ModelRecord.model_fields}
    scores = Evaluation.load(verified(record, before[-1], "predictions")).scores.numpy()
    fields |= {"reports": {}, "key": None, "cached": False, "seconds": round(seconds, 3), "finished": now()}
    fields |= {"retention_before": retention(scores, scores, record.seed), "latency": rows, "changed": False}
    with blame(StageError, place, fix=LATENCY):
        return StageRecord(**fields, position=position, name=name, settings=settings)
