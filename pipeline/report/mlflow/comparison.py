"""A comparison in MLflow: a parent run, and a child for each strategy with the same figures, fit for its compare page.

The runs of a strategy, one a seed, are nested below its child where they were made for the comparison.
"""

import logging
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.records.comparison import BASELINE, FILE, ComparisonRecord, StrategyRecord
from pipeline.records.figures import numbers, points, runtime_of
from pipeline.records.folder import load_run
from pipeline.records.rows import chosen_tags
from pipeline.report.mlflow.connection import PARAM_LENGTH, PARENT, Connection, milliseconds, timed
from pipeline.report.mlflow.pages import NOTE, capped_text, short_name
from pipeline.report.mlflow.run import is_synced, keep_state, log_files
from pipeline.report.mlflow.sync import sync

LOG = logging.getLogger("shrinkline")


def track_comparison(record: ComparisonRecord, *, require: bool = False) -> bool:
    """Project a comparison and the runs made for it; gives whether there was something to do.

    Args:
        record: as it ended.
        require: raise TrackingError where MLflow cannot be reached; else it costs a warning.
    """
    folder = Path(record.folder)
    if is_synced(folder):
        return False
    to = Connection(folder.parent, f"shrink sync {folder}")
    keep_state(folder, synced=False)
    to.tolerant(_project, to, record)
    if not to.problem:
        keep_state(folder, synced=True, experiment=to.experiment)
    elif require:
        to.insist()
    return True


def figures_of(strategy: StrategyRecord) -> dict[str, float]:
    """The numbers of a strategy by name; intervals as `_low` and `_high`, deviations over seeds as `_deviation`."""
    figures = numbers(strategy, StrategyRecord.model_fields)
    for timing in strategy.latency:
        key = f"latency.{runtime_of(timing.model_dump(), '.')}.threads{timing.threads}.batch{timing.batch}.ratio"
        ends = {key: timing.value, f"{key}_low": timing.low, f"{key}_high": timing.high}
        figures |= {name: end for name, end in ends.items() if end is not None}
    return figures | {"on_front": float(strategy.on_front), "chosen": float(strategy.chosen)}


def _project(to: Connection, record: ComparisonRecord) -> None:
    to.open()
    folder = Path(record.folder)
    tags = {"mlflow.source.name": "shrink compare", "choice": record.choice or "none", "why": record.choice_reason}
    tags |= chosen_tags(record.chosen)
    parent = str(to.run(record.comparison, short_name(record.comparison), record.started, tags).info.run_id)
    params = {"axes": ", ".join(record.axes), "seeds": ", ".join(map(str, record.seeds))}
    params |= {f"file.{i}": origin for i, origin in enumerate(record.origins)}
    message_tags = {"warnings": "\n".join(record.warnings), "notes": "\n".join(record.notes)}
    to.log(parent, params=params, tags=message_tags | {NOTE: capped_text(folder / "summary.md", PARAM_LENGTH)})
    for strategy in record.strategies:
        _strategy(to, record, parent, strategy)
    log_files(to, parent, folder, (FILE, "summary.md", "report.html"))
    failed = any(strategy.failures for strategy in record.strategies)
    to.client.set_terminated(parent, "FAILED" if failed else "FINISHED" if record.ended else "KILLED")


def _strategy(to: Connection, record: ComparisonRecord, parent: str, strategy: StrategyRecord) -> None:
    """A strategy's run, and below it those that were made for this comparison."""
    run = to.run(f"{record.comparison}/{strategy.name}", strategy.name, record.started, {PARENT: parent})
    child, when = str(run.info.run_id), record.started
    tags = {"runs": "\n".join(strategy.runs), "promised": strategy.claim or ""}
    figures = timed(points(figures_of(strategy), 0), when)
    to.log(child, metrics=figures, params={"strategy": strategy.name}, tags=tags)
    runs = [] if strategy.name == BASELINE else [*strategy.runs, *strategy.failed_runs]  # its runs are a strategy's
    for folder in () if record.of_runs else [Path(record.folder).parent / name for name in runs]:
        try:
            if (folder / "record.json").is_file() and load_run(folder, ended=False).comparison == record.comparison:
                sync(folder)
        except ConfigError as error:  # of that run alone; the others are logged
            LOG.warning("%s", error)
    to.client.set_terminated(child, "FAILED" if strategy.failures else "FINISHED", milliseconds(when))
