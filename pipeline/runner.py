"""The Python API: run a pipeline file, go on with a run that was stopped, log to MLflow what it missed.

>>> from pipeline.runner import run                                     # doctest: +SKIP
>>> record = run("configs/digits/compress.yaml", overrides=["stages.0.epochs=20"])
>>> record.final.retention, record.final.file
"""

import fcntl
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from pydantic import JsonValue
from rich.console import Console

from pipeline import disk, journal
from pipeline.build import Built, build
from pipeline.chain import Run, settings_of
from pipeline.config import PipelineConfig, load_config
from pipeline.environment import describe
from pipeline.errors import (
    ConfigError,
    LockTimeoutError,
    blame,
)
from pipeline.interrupt import Interrupts
from pipeline.journal import Journal
from pipeline.maker import Maker, pick_device, set_seed
from pipeline.processes import check_division, gathered, how_many
from pipeline.record import Record
from pipeline.store import Store
from pipeline.tracking import open_tracking, sync

LOG = logging.getLogger("shrinkline")


def run(
    config: str | Path | PipelineConfig,
    *,
    overrides: Sequence[str] = (),
    runs: str | Path = "runs",
    register: str | None = None,
    track: bool = True,
    require_tracking: bool = False,
    lock_timeout: float | None = None,
    console: Console | None = None,
    processes: int | None = None,
) -> Record:
    """Run a pipeline file and give its record; the run folder `runs/<run>` holds all that it made.

    Args:
        config: a pipeline file, or a config made in Python.
        overrides: such as "stages.1.temperature=2".
        runs: where run folders are made; the store and the default MLflow database lie there too.
        register: a name under which the last model goes into MLflow's registry.
        track: log to MLflow.
        require_tracking: raise TrackingError where MLflow cannot be reached.
        lock_timeout: seconds to wait for another process that makes the same result; None waits for ever.
        console: where progress is shown; standard error by default.
        processes: how many train together on this machine; under torchrun those that it has started.

    Raises:
        ConfigError: the config cannot work; nothing was run.
        StageError: a stage failed; the record of what came before is in the run folder.
        Interruption: a stop was asked for; `resume` goes on.
    """
    source = None
    if not isinstance(config, PipelineConfig):
        config, source = load_config(Path(config), overrides)
    size = how_many(processes)
    set_seed(config.seed)  # the task may draw a split and the model its first weights
    built = build(config, source)
    _check(built, size)
    record = start(built, Path(runs), register)
    return _go(built, record, size, track, require_tracking, lock_timeout, console)


def resume(
    folder: str | Path,
    *,
    track: bool = True,
    require_tracking: bool = False,
    lock_timeout: float | None = None,
    console: Console | None = None,
    processes: int | None = None,
) -> Record:
    """Go on with a run that was stopped or killed, in its folder, with as many processes unless told; see `run`."""
    folder = Path(folder).resolve()
    events = journal.read(folder / "journal.jsonl")
    if not events or not (folder / "record.json").is_file():
        raise ConfigError("this is no run folder", where=str(folder), expected="a journal.jsonl and a record.json")
    size = how_many(processes, _size(events))
    with blame(ConfigError, str(folder), fix="Start a new run"):
        earlier = Record.load(folder)
    code = _code_folder(folder)
    config = PipelineConfig.model_validate({**earlier.config, "folder": code}, context={"folder": code})
    set_seed(config.seed)
    built = build(config)
    _check(built, size)
    left = journal.unfinished(events)
    if left:
        LOG.warning("%s was killed in %s; if memory ran out, lower its batch_size", earlier.run, left)
    times = {(event["place"], event["key"]): event["finished"] for event in events if event["event"] == "measured"}
    anew: dict[str, Any] = {"baseline": None, "stages": [], "gates": [], "verdict": None, "failure": None}
    record = earlier.model_copy(update={**anew, "warnings": [*built.warnings]})
    return _go(built, record, size, track, require_tracking, lock_timeout, console, times)


def sync_run(folder: str | Path) -> bool:
    """Log to MLflow what a run folder has and MLflow has not; gives whether there was something to do.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    return sync(Path(folder).resolve())


def _size(events: list[dict[str, Any]]) -> int:
    """How many processes trained when a run was last begun."""
    return int([event for event in events if event["event"] == "start"][-1].get("processes", 1))


def _check(built: Built, size: int) -> None:
    """Refuse a device that is not there and what cannot be divided among processes."""
    check_division(size, pick_device(built.config.device), (*built.baseline, *built.stages), len(built.task.train))


def _code_folder(folder: Path) -> Path:
    """Where the user's files of a run are: the pipeline file's folder."""
    events = journal.read(folder / "journal.jsonl")
    return Path(events[0]["folder"]) if events else Path()


def start(built: Built, runs: Path, register: str | None = None) -> Record:
    """Make the run folder with the resolved config, and the record to fill."""
    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{built.config.name}-{uuid4().hex[:4]}"
    folder = (runs / name).resolve()
    with blame(ConfigError, f"the folder for runs, {runs}", fix="Choose another with --runs"):
        folder.mkdir(parents=True)
    config = built.config.model_dump(mode="json", exclude_none=True)
    for key, chain in (("baseline", built.baseline), ("stages", built.stages)):
        config[key] = [
            {"use": entry["use"], **settings_of(s)} for entry, (_, s) in zip(config[key], chain, strict=True)
        ]
    splits = built.task.splits
    data: dict[str, Any] = {n: {"examples": len(splits[n]), "digest": s.digest} for n, s in built.data.items()}
    record = Record(
        run=name,
        folder=str(folder),
        started=now.isoformat(timespec="seconds"),
        config=config,
        seed=built.config.seed,
        data=data,
        environment=describe(built.config.folder),
        warnings=list(built.warnings),
        register_as=register,
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "environment.json").write_text(json.dumps(record.environment, indent=2) + "\n")
    record.save()
    return record


def _go(
    built: Built,
    record: Record,
    size: int,
    track: bool,
    require: bool,
    lock_timeout: float | None,
    console: Console | None,
    earlier: dict[tuple[str, str | None], str] | None = None,
) -> Record:
    """Everything that lasts as long as a run, around it."""
    folder = Path(record.folder)
    runs = folder.parent
    disk.check(built, runs)
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        stack.enter_context(_alone(folder))
        log = stack.enter_context(_journal(folder, built, size))
        stack.enter_context(_log_to(folder / "run.log"))
        tracking = stack.enter_context(open_tracking(record, runs, require)) if track else None
        store = Store(runs / "store", lock_timeout, interrupts.check)
        group = stack.enter_context(gathered(size, _told(built, record), interrupts.check))
        maker = Maker(built, store, log, console or Console(stderr=True), interrupts, processes=group)
        return Run(built, record, maker, tracking, earlier or {}).forwards()


def _told(built: Built, record: Record) -> dict[str, JsonValue]:
    """What the other processes need to build what is built here."""
    data: dict[str, JsonValue] = {name: sighting.digest for name, sighting in built.data.items()}
    return {"config": record.config, "folder": str(built.config.folder.resolve()), "data": data}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, a child does not hold it any longer
        except OSError:
            raise LockTimeoutError("another process works on this run", where=str(folder)) from None
        yield


@contextmanager
def _journal(folder: Path, built: Built, size: int) -> Iterator[Journal]:
    log = Journal(folder / "journal.jsonl")
    try:
        log.write("start", folder=str(built.config.folder.resolve()), processes=size)
        yield log
    finally:
        log.close()


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.addHandler(handler)
    level = LOG.level
    LOG.setLevel(logging.DEBUG)  # for the file; what is shown is for the other handlers to choose
    try:
        yield
    finally:
        LOG.setLevel(level)
        LOG.removeHandler(handler)
        handler.close()
