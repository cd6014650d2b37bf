"""A run folder in MLflow, afterwards: what is there is projected as if the run had just made it."""

import logging
from pathlib import Path

from pipeline.base.files import locked
from pipeline.errors import ConfigError, blame
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.text.remapped import saved_vocabulary
from pipeline.model import Deployed, OnnxModel
from pipeline.records.folder import load_events, load_run, verified
from pipeline.records.parts.models import ModelRecord
from pipeline.report.mlflow.logged_model import Graph
from pipeline.report.mlflow.run import LOCK, Tracking, is_synced, status_of

LOG = logging.getLogger("shrinkline")


def sync(folder: Path) -> bool:
    """Project a run folder that MLflow does not have whole; gives whether there was something to do.

    Raises:
        ConfigError: its record or its files are damaged.
        TrackingError: MLflow cannot be reached.
    """
    with locked(folder / LOCK, timeout=0) as is_ours:
        if not is_ours:
            LOG.warning("%s: another process runs or logs it", folder.name)
        if not is_ours or is_synced(folder):
            return False
        record, events = load_run(folder, ended=False), load_events(folder)
        for _, model in record.models:
            for what in ("folder", "file"):
                verified(record, model, what)
        done = bool(events) and events[-1]["event"] == "end"
        with blame(ConfigError, str(folder), fix="Run it again"):  # libraries read its files, which may be damaged
            tracking = Tracking(record, folder.parent, require=True)
            tracking.update(record)
            if done and record.final:
                tracking.finish(record, graph_of(_deployed(Path(record.folder), record.final)))
            when = [event["time"] for event in events[-1:] if event.get("time")]
            tracking.end(record, status_of(record, done), when=[record.started, *when][-1])
    tracking.to.insist()
    return True


def graph_of(final: Deployed) -> Graph | None:
    """What MLflow needs of the last model; None of an encoder-decoder, which is several graphs."""
    if not isinstance(final, OnnxModel):
        return None
    return Graph(final.path, {name: value.numpy() for name, value in next(final.calls(final.example)).items()})


def _deployed(folder: Path, model_record: ModelRecord) -> Deployed:
    """A model of a run in the form in which it would be deployed; the user's code is not needed for it."""
    from safetensors.torch import load_file

    if model_record.form == Seq2SeqOnnx.form:
        return Seq2SeqOnnx.load(folder / model_record.folder)
    if model_record.form == OnnxModel.form:
        return OnnxModel.load(folder / model_record.folder)
    example = load_file(folder / model_record.folder / "example.safetensors")
    return OnnxModel(folder / model_record.file, example, vocabulary=saved_vocabulary(folder / model_record.folder))
