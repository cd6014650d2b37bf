"""The Python API: run a pipeline file, go on with a run that was stopped, log to MLflow what it missed.

>>> from pipeline.runner import run                                     # doctest: +SKIP
>>> record = run("configs/digits/compress.yaml", overrides=["stages.0.epochs=20"])
>>> record.final.retention, record.final.file
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack
from uuid import uuid4

import yaml
from pydantic import JsonValue
from rich.console import Console

from pipeline.base.code.recorder import recorder
from pipeline.base.devices import pick_device
from pipeline.base.hardware import describe
from pipeline.base.signals import Interrupts
from pipeline.build.build import Built, build
from pipeline.build.live.lent import lending
from pipeline.build.live.load import Asked, Loaded, load
from pipeline.build.live.module import Builder, check_same
from pipeline.errors import ConfigError, LockTimeoutError, ShrinkError
from pipeline.model import TorchModel
from pipeline.records import journal
from pipeline.records.comparison import FILE
from pipeline.records.folder import load_comparison, load_run
from pipeline.records.journal import Journal, alone
from pipeline.records.record import Record
from pipeline.report.mlflow.comparison import track_comparison
from pipeline.report.mlflow.run import Projection, open_tracking
from pipeline.report.mlflow.sync import sync
from pipeline.run import disk
from pipeline.run.chain import Run, Times
from pipeline.run.distributed.launch import check_division, gathered, how_many
from pipeline.run.executor import Executor
from pipeline.run.foresight import foreseen
from pipeline.run.recorded import recorded
from pipeline.run.store.store import Store

LOG = logging.getLogger("shrinkline")


class RunOptions(TypedDict, total=False):
    """How a run is done.

    Args:
        track: log to MLflow, as unless given.
        open_tracking: what logs, such as another process; this one unless given. See the function of this name.
        require_tracking: raise TrackingError where MLflow cannot be reached.
        lock_timeout: seconds to wait for another process that makes the same result; waits for ever unless given.
        console: where progress is shown; standard error unless given.
        processes: how many train together on this machine; under torchrun those that it has started.
        benchmarks: run the stages whose figures hold on this machine alone, as unless given.
        allow_unsafe_load: unpickle weights that are more than tensors, where `model:` has their sha256.
    """

    track: bool
    open_tracking: Callable[[Record, Path, bool], AbstractContextManager[Projection]] | None
    require_tracking: bool
    lock_timeout: float | None
    console: Console | None
    processes: int | None
    benchmarks: bool
    allow_unsafe_load: bool


def run(
    config: Asked,
    *,
    overrides: Sequence[str] = (),
    strategy: str | None = None,
    runs: str | Path = "runs",
    folder: str | Path | None = None,
    builder: Builder | None = None,
    register: str | None = None,
    comparison: str | None = None,
    **options: Unpack[RunOptions],
) -> Record:
    """Run a pipeline file and give its record; the run folder `runs/<run>` holds all that it made.

    Args:
        config: a pipeline file, or the keys of one as a mapping, with a Task, a trained module and stages as objects.
        overrides: such as "stages.1.temperature=2".
        strategy: which of a file's `strategies:`.
        runs: where run folders are made; the store and the default MLflow database lie there too.
        folder: where files that a mapping names are looked for; the working directory unless given.
        builder: what builds a module that stands in the mapping, such as "models.py:net" or partial(net, width=16).
        register: a name under which the last model goes into MLflow's registry.
        comparison: the folder of the comparison that the run is part of.
        options: see `RunOptions`.

    Raises:
        ConfigError: the config cannot work; nothing was run.
        StageError: a stage failed; the record of what came before is in the run folder.
        Interruption: a stop was asked for; `resume` goes on.
    """
    size = how_many(options.get("processes"))
    loaded = load(config, overrides, strategy, Path(runs), Path(folder) if folder else None, builder)
    with recorder().holding(), lending(loaded.objects):
        built = _built(loaded, options.get("allow_unsafe_load", False))
        _check(built, size)
        built = _foreseen(built, Path(runs), options)
        record = start(built, Path(runs), register)
        record.origin, record.comparison = loaded.origin, comparison
        return _go(built, record, size, options)


@contextmanager
def planned(
    config: Asked,
    *,
    overrides: Sequence[str] = (),
    strategy: str | None = None,
    runs: str | Path = "runs",
    folder: str | Path | None = None,
    builder: Builder | None = None,
    allow_unsafe_load: bool = False,
) -> Iterator[tuple[Built, Store]]:
    """What would run, built and checked, and the store that it would use; see `run`, and `pipeline.run.plan`."""
    loaded = load(config, overrides, strategy, Path(runs), Path(folder) if folder else None, builder)
    with lending(loaded.objects):
        yield _built(loaded, allow_unsafe_load), Store(Path(runs) / "store")


def _built(loaded: Loaded, allow_unsafe_load: bool) -> Built:
    """What is loaded, built; where a builder was named for a module, it builds that one."""
    built = build(loaded.config, loaded.source, allow_unsafe_load=allow_unsafe_load)
    if loaded.module and isinstance(built.model, TorchModel):
        check_same(built.model, loaded.module)
    unhashed = [loan.warning for loan in loaded.objects.values() if loan.warning]
    return replace(built, warnings=(*built.warnings, *unhashed))


def resume(folder: str | Path, **options: Unpack[RunOptions]) -> Record:
    """Go on with a run that was stopped or killed, in its folder, with as many processes unless told; see `run`.

    The code that the run's config names is run, from the folder that its journal has: treat both like code.
    """
    folder = Path(folder).resolve()
    earlier, events, config = recorded(folder)
    starts = [event for event in events if event["event"] == "start" and event.get("folder")]
    size = how_many(options.get("processes"), starts[-1].get("processes", 1))
    with recorder().holding():
        built = build(config, allow_unsafe_load=options.get("allow_unsafe_load", False))
        _check(built, size)
        if unfinished_place := journal.unfinished(events):
            LOG.warning("%s was killed in %s; if memory ran out, lower its batch_size", earlier.run, unfinished_place)
        times = {(event["place"], event["key"]): event["finished"] for event in events if event["event"] == "measured"}
        anew: dict[str, Any] = {"baseline": None, "stages": [], "gates": [], "verdict": None, "failure": None}
        anew |= {"notes": [], "interface": None, "flipped": None, "test_uses": None, "chosen": None}
        record = earlier.model_copy(update={**anew, "warnings": [*built.warnings]})
        return _go(built, record, size, options, times)


def sync_run(folder: str | Path) -> bool:
    """Log to MLflow what a folder of a run or comparison has and MLflow has not; gives whether there was something.

    Raises:
        ConfigError: it is no such folder, or is damaged.
        TrackingError: MLflow cannot be reached.
    """
    folder = Path(folder).resolve()
    is_comparison = (folder / FILE).is_file()
    above = None if is_comparison else load_run(folder, ended=False).comparison
    try:
        with alone(folder):  # one that still runs, untracked, would be told as killed
            if is_comparison:
                return track_comparison(load_comparison(folder), require=True)
            with _alone_if_there(folder.parent / above if above else None):  # it logs its runs once they are timed
                return sync(folder)
    except LockTimeoutError:
        LOG.warning("%s: another process runs or logs it", folder.name)
        return False


def _alone_if_there(comparison: Path | None) -> AbstractContextManager[None]:
    """Keep out the comparison that a run is part of, where there is one."""
    return alone(comparison) if comparison and comparison.is_dir() else nullcontext()


def _check(built: Built, size: int) -> None:
    """Refuse a device that is not there, and what cannot be divided among processes, or be had in another."""
    lent = [key for key in ("task", "model") if getattr(built.config, key).is_lent]
    if size > 1 and lent:
        fix = 'Train in one process, or name them: task={"use": "data.py"}, builder="models.py:net"'
        raise ConfigError(f"{size} processes need what builds the {lent[0]} in each", where="processes", fix=fix)
    check_division(size, pick_device(built.config.device), (*built.baseline, *built.stages), len(built.task.train))


def _foreseen(built: Built, runs: Path, options: RunOptions) -> Built:
    """Try before training what training would end in, and say how far the stages reach."""
    if not any([*stage.trainings()] for _, stage in (*built.baseline, *built.stages)):
        return built  # what it would end in comes soon
    foresight = foreseen(built, Store(runs / "store", options.get("lock_timeout")))
    for note in foresight.notes[len(built.notes) :]:
        LOG.info("%s", note)
    return foresight


def start(built: Built, runs: Path, register: str | None = None) -> Record:
    """Make the run folder with the resolved config, and the record to fill."""
    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{built.config.name}-{uuid4().hex[:4]}"
    folder = (runs / name).resolve()
    disk.make(folder, runs)
    config = built.config.model_dump(mode="json", exclude_none=True)
    for key, chain in (("baseline", built.baseline), ("stages", built.stages)):
        settings = [stage.model_dump(mode="json") for _, stage in chain]
        config[key] = [{"use": entry["use"], **values} for entry, values in zip(config[key], settings, strict=True)]
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


def _go(built: Built, record: Record, size: int, options: RunOptions, earlier: Times | None = None) -> Record:
    """Everything that lasts as long as a run, around it; an error of ours knows the run that it ended."""
    folder = Path(record.folder)
    runs = folder.parent
    disk.check(built, runs)
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        stack.enter_context(alone(folder))
        log = stack.enter_context(closing(Journal(folder / "journal.jsonl")))
        log.write("start", folder=str(built.config.folder.resolve()), processes=size)
        stack.enter_context(_log_to(folder / "run.log"))
        require = options.get("require_tracking", False)
        opening = options.get("open_tracking") or open_tracking
        tracking = stack.enter_context(opening(record, runs, require)) if options.get("track", True) else None
        store = Store(runs / "store", options.get("lock_timeout"), interrupts.check)
        description = _description(built, record, options.get("allow_unsafe_load", False))
        processes = stack.enter_context(gathered(size, description, interrupts.check))
        console = options.get("console") or Console(stderr=True)
        executor = Executor(built, store, log, console, interrupts, processes=processes)
        try:
            whole = Run(built, record, executor, tracking, earlier or {})
            return whole.forwards(benchmarks=options.get("benchmarks", True))
        except ShrinkError as error:
            error.run = folder
            raise


def _description(built: Built, record: Record, allow_unsafe_load: bool) -> dict[str, JsonValue]:
    """What the other processes need to build what is built here."""
    data: dict[str, JsonValue] = {name: summary.digest for name, summary in built.data.items()}
    folder = str(built.config.folder.resolve())
    return {"config": record.config, "folder": folder, "data": data, "allow_unsafe_load": allow_unsafe_load}


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
