"""What a runtime loads of a model, made anew and compared, in a folder to deploy: its files and what reads them."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import JsonValue

from pipeline.base.batches import Inputs
from pipeline.errors import ConfigError, StageError, blame
from pipeline.model import Model, OnnxModel
from stages.benchmark import runners
from stages.benchmark.answers.agreement import REFERENCE, compare
from stages.benchmark.answers.distances import tolerance_of
from stages.benchmark.hosts.files import loaded_files
from stages.benchmark.processes.process import Spec, answers, as_arrays
from stages.benchmark.runners.loaded import Arrays
from stages.benchmark.runtime import Runtime

RUNNERS = Path(runners.__path__[0])
PACKAGE = f"{runners.__name__}."
"""What the imports of a runner begin with; in a folder to deploy its files lie beside it."""
NAME = "model"
OURS = ("runner", "python", "root", "model", "source", "shapes", "files")
"""What a process of ours is told and a deployed model is not."""


@dataclass(frozen=True)
class Alone:
    """What a conversion asks of a stage's context, where there is no run: the model is what is deployed."""

    file: OnnxModel
    baseline: None = None

    def deployed(self, model: Model) -> OnnxModel:
        """That file."""
        return self.file

    def warn(self, text: str) -> None:
        """Nothing is told: the run that measured the model has told it."""

    def report(self, name: str, value: JsonValue) -> None:
        """Nothing is kept."""


def deploy(runtime: Runtime, model: OnnxModel, folder: Path, *, may_differ: bool) -> dict[str, JsonValue]:
    """Fill a folder with what a runtime loads of a model, and with `session.py`, which predict.py opens it by.

    Args:
        runtime: where it is to run.
        model: the ONNX file that is deployed.
        folder: to fill.
        may_differ: whether its answers may differ from ONNX Runtime's by more than rounding, for they were scored.

    Returns:
        For model.json: `name`, `version` and `settings`; `file` to load; `size_bytes`; `batch` that it takes alone,
        null for any; `requirements`; `session`, whether predict.py opens it by session.py; `told`, what that is told;
        `agreement` with ONNX Runtime on the model's own examples.

    Raises:
        ConfigError: the runtime is not here, or needs more than itself and numpy.
        StageError: it does not take the model, or answers otherwise.
    """
    if missing := runtime.missing():
        raise ConfigError(f"{runtime.name} cannot run here: {missing}")
    if not runtime.travels:
        fix = "Load the run's model with pipeline.model.load"
        raise ConfigError(f"{runtime.name} needs the model's own code, and not numpy alone", fix=fix)
    runtime.accepts(model, (1,))
    ctx: Any = Alone(model)
    with TemporaryDirectory(prefix="deploy-") as name, blame(StageError, runtime.name):
        work = Path(name)
        place = runtime.convert(model, ctx, work, 1)
        agreement = _agreement(runtime, model, place, work, may_differ)
        places = _copied(place, folder)
    session = None if REFERENCE.runner_file in (runtime.runner_file, runtime.reads_as) else RUNNERS / "session.py"
    if session:
        _copy_sources(runtime, folder)
    needed: list[JsonValue] = [*runtime.requirements()]
    return {
        **{"name": runtime.name, "version": runtime.version(), "settings": runtime.settings, "file": places[0].name},
        "size_bytes": sum(path.stat().st_size for path in places),
        "batch": 1 if runtime.fixed_batch else None,
        "requirements": needed,
        "session": bool(session),
        "told": {key: value for key, value in place.items() if key not in OURS},
        "agreement": agreement,
    }


def _agreement(runtime: Runtime, model: OnnxModel, place: Spec, work: Path, may_differ: bool) -> dict[str, JsonValue]:
    """How the converted model answers its own examples beside ONNX Runtime. Raises StageError where otherwise."""
    spec = {"runner": runtime.runner_file, "python": runtime.python, "threads": 1, **place}
    reference = {"runner": REFERENCE.runner_file, "model": str(model.path.resolve()), "threads": 1}
    own, theirs = (work / which for which in ("own", "theirs"))
    for path in (own, theirs):
        path.mkdir()
    ctx: Any = Alone(model)
    size = model.batch or (1 if runtime.fixed_batch else len(next(iter(model.example.values()))))

    def answered(one: Runtime, own_spec: Spec, at: Path) -> Iterator[Arrays]:
        feeds = (feed for batch in _batches(model.example, size) for feed in one.batches(model, ctx, batch))
        return answers(own_spec, map(as_arrays, feeds), at)

    pair = answered(runtime, spec, own), answered(REFERENCE, reference, theirs)
    agreement = compare(*pair, tolerance_of(model.path))
    if not (agreement.agrees or may_differ):
        fix = f"Measure its score: `runtimes: [{runtime.name}]` of benchmark.latency tells whether it is the same model"
        apart = f"{agreement.difference:.2%} of an output's range, where {agreement.tolerance:.2%} is rounding"
        raise StageError(f"its answers differ from ONNX Runtime's by up to {apart}", fix=fix)
    return agreement.json


def _batches(example: Inputs, size: int) -> Iterator[Inputs]:
    count = len(next(iter(example.values())))
    for start in range(0, count - count % size, size):
        yield {name: value[start : start + size] for name, value in example.items()}


def _copied(place: Spec, folder: Path) -> list[Path]:
    """The files of the model in the folder, that which is loaded first; it is called model, and so are its like."""
    source = Path(str(place["model"]))
    places = []
    for path in sorted(loaded_files(place), key=lambda file: file != source):
        beside = path.relative_to(source.parent)
        places.append(folder / (f"{NAME}{path.suffix}" if path.stem == source.stem else beside))
        places[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, places[-1])
    return places


def _copy_sources(runtime: Runtime, folder: Path) -> None:
    """The runner that measured it, and what that imports, as files side by side."""
    runner = RUNNERS.joinpath(*runtime.runner_file.split(".")).with_suffix(".py")
    for source, name in ((runner, "runner.py"), (RUNNERS / "loaded.py", ""), (RUNNERS / "session.py", "")):
        (folder / (name or source.name)).write_text(source.read_text().replace(PACKAGE, ""))
