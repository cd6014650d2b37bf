"""What a config needs that is not here: files, modules, extras, data, a GPU. Nothing that it names is run."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.code.extras import expect_extra, install
from pipeline.base.data.hub import Kind
from pipeline.base.use import Reference
from pipeline.build.config import PipelineConfig
from pipeline.build.source import load_all
from pipeline.build.syntax.declared import extra_of
from pipeline.cli.doctor import machine
from pipeline.cli.doctor.files import CONCERN, File, located
from pipeline.cli.doctor.finding import Finding
from pipeline.cli.doctor.sources import Absent, missing_imports, source_of
from pipeline.errors import ConfigError

FILES = ("weights", "saved", "onnx")
"""Keys, anywhere in a config, that name a file or a folder beside it."""

DATA: dict[str, tuple[tuple[str, Kind], ...]] = {
    "task": (("data", "datasets"), ("tokenizer", "models")),
    "model": (("name", "models"),),
}
"""Arguments of the built-in task and model that name a folder, or what is on the hub."""

OWN_DATA: tuple[tuple[str, Kind], ...] = (("path", "datasets"),)
"""Arguments of a user's task that do so by custom; other names may mean anything."""

AUDIO, TIMM = "soundfile", "timm"


def needs(path: Path, overrides: Sequence[str] = ()) -> list[Finding]:
    """A row for each thing that the config names, each once; of a file with `strategies:` those of all."""
    try:
        configs = [config for config, _ in load_all(path, overrides).values()]
    except ConfigError as error:
        return [Finding(CONCERN, str(path), "missing", f"it cannot be read as a config: {error}", "Repair it")]
    rows = dict.fromkeys(row for config in configs for row in _of(config))
    return list(dict.fromkeys(row.examined() if isinstance(row, File) else row for row in rows))


def _of(config: PipelineConfig) -> Iterator[Finding | File]:
    """What one config needs."""
    folder, limits = config.folder, config.budget.model_dump(mode="json").values()
    yield from code("task", config.task.use, folder, "pipeline.tasks")
    if config.model.use:
        package = "" if ":" in config.model.use or config.model.use.endswith(".py") else "pipeline.tasks"
        yield from code("model", config.model.use, folder, package)
    for key, entries in (("baseline", config.baseline), ("stages", config.stages)):
        for entry in entries:
            yield from _extra(key, entry.use) or code(key, entry.use, folder, "stages")
            yield from _inside(key, entry.settings, folder)
    yield from _inside("model", config.model.model_dump(mode="json"), folder, builders=False)
    for key, reference in (("task", config.task), ("model", config.model)):
        yield from _data(key, reference)
    if "expected" in [limit.get("of") for limit in limits if isinstance(limit, dict)]:
        yield File("budget", str(config.budget.expected), folder)
    if config.device == "cuda" and not machine.usable():
        fix = "Set `device: auto`, or install the driver and a torch with CUDA"
        yield Finding(CONCERN, "device: cuda", "missing", "there is no GPU that the installed torch can use", fix)


def code(place: str, use: str, folder: Path, package: str = "") -> Iterator[Finding]:
    """Whether the code that a `use:` names is there, and what it imports too.

    Args:
        place: in the config, such as "stages".
        use: as it stands there.
        folder: of the pipeline file.
        package: what a bare dotted name is in.
    """
    name = f"{place}: {use}"
    try:
        source = source_of(use, folder, package)
    except Absent as error:
        yield Finding(CONCERN, name, "missing", str(error), "Correct `use`, or put the file beside the config")
        return
    absent = sorted(missing_imports(source)) if source else []
    for module in absent:
        yield Finding(CONCERN, name, "missing", f"it imports `{module}`, which is not installed", install(module))
    if not absent:
        yield Finding(CONCERN, name, "ok", "here, with what it imports" if source else "here")


def _extra(key: str, use: str) -> list[Finding]:
    """A row where an extra is not installed that a stage needs."""
    try:
        if extra := extra_of(use):
            expect_extra(extra)
    except ConfigError as error:
        return [Finding(CONCERN, f"{key}: {use}", "missing", error.found, error.fix)]
    return []


def _inside(place: str, value: Any, folder: Path, builders: bool = True) -> Iterator[Finding | File]:
    """What settings name at any depth: code of the user's or of an installed module, weights, saved models."""
    values: Iterable[Any] = value if isinstance(value, list) else ()
    if isinstance(value, dict):
        values = value.values()
        use = value.get("use")
        if builders and isinstance(use, str) and (use.partition(":")[0].endswith(".py") or ":" in use):
            yield from code(place, use, folder)
        yield from _files(place, value, folder)
    for inner in values:
        if isinstance(inner, dict | list):
            yield from _inside(place, inner, folder, builders)


def _files(place: str, value: dict[str, Any], folder: Path) -> Iterator[File]:
    """What a mapping names by the keys of files. In a stage of the user's they may hold anything; builders' do not."""
    is_builder = place == "model" or "use" in value
    for key in FILES:
        file_name, memory = value.get(key), None
        if isinstance(file_name, dict):  # `onnx: {file: net.onnx}`
            memory, file_name = file_name.get("memory"), file_name.get("file")
        if isinstance(file_name, str):
            arguments = {"sha256": value.get("sha256"), "memory": memory} if place == "model" else {}
            yield File(f"{place} {key}", file_name, folder, form=key if is_builder else "", **arguments)


def _data(key: str, reference: Reference) -> Iterator[Finding]:
    """Folders and names on the hub; what decodes audio."""
    is_built_in = reference.use == "huggingface"
    for argument, kind in DATA[key] if is_built_in else OWN_DATA if key == "task" else ():
        name = reference.arguments.get(argument)
        if isinstance(name, str) and name:
            yield located(f"{key}.{argument}", name, kind, (reference.folder, Path.cwd()))
    if "audio" in str(reference.arguments.get("kind", "")):
        yield from _library(AUDIO, f"{key}.kind", "reads audio", reference.folder)
    if reference.use.startswith("huggingface.timm"):
        yield from _library(TIMM, f"{key}.use", "makes the model", reference.folder)


def _library(name: str, place: str, does: str, folder: Path) -> Iterator[Finding]:
    """A row where a library of an extra is not installed."""
    try:
        source_of(f"{name}:{name}", folder)
    except Absent as error:
        yield Finding(CONCERN, place, "missing", f"{error}, which {does}", install(name))
