"""The task and the model at the start of a chain, as a config names them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.base.use import Reference, find, is_built_in
from pipeline.build.config import ModelSource
from pipeline.build.onnx_input import open_onnx
from pipeline.build.probe import example_inputs
from pipeline.errors import ConfigError, Note, blame
from pipeline.forms.weights import load_weights
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import CALIBRATION_EXAMPLES, Task, sample

UNSAFE_ALLOWED = "--allow-unsafe-load was given: weights with the sha256 of `model:` may run code of theirs"

ELSEWHERE = (
    "model: the {} was given from Python and nothing else can build it, so that `runtimes: [torch]`, several processes "
    'and `shrink resume` are not to be had; builder="models.py:net" would give them'
)

FOLDERS = ("data", "tokenizer", "name")
"""Arguments of a built-in task or model that may name a folder."""


def build_task(reference: Reference, limit: int | None = None) -> Task:
    """The task that a reference names: a built-in one, or the function `task` of a user's file.

    With a limit it has so many examples of each split at most, and calibration is drawn from those that train.
    """
    where = f"task ({reference.use})"
    reference = _read_less(reference, limit)
    with blame(ConfigError, where):
        function = find(reference.use, reference.folder, package="pipeline.tasks", attribute="task")
        task = function(**_located(reference))
    if not isinstance(task, Task):
        raise ConfigError(f"it gave {type(task).__name__}", where=where, expected="a pipeline.task.Task")
    if limit is None:
        return task
    train, validation, test = (sample(split, limit) for split in (task.train, task.validation, task.test))
    calibration = sample(train, CALIBRATION_EXAMPLES)
    return replace(task, train=train, validation=validation, test=test, calibration=calibration)


def _read_less(task: Reference, limit: int | None) -> Reference:
    """The reference, told the limit where it streams: it would otherwise read all that there is first."""
    streams = is_built_in(task.use) and task.arguments.get("streaming")
    if limit is None or not streams or "limit" in task.arguments:
        return task
    return task.model_copy(update={"arguments": {**task.arguments, "limit": limit}})


def _located(reference: Reference) -> dict[str, Any]:
    """Its arguments; of what is built in, folders that lie beside the pipeline file by their whole path."""
    if not is_built_in(reference.use):
        return reference.arguments
    folders = {key: reference.folder / str(reference.arguments.get(key) or "") for key in FOLDERS}
    there = {key: str(path) for key, path in folders.items() if path != reference.folder and path.is_dir()}
    return reference.arguments | there


def start_model(
    source: ModelSource, task: Task, *, allow_unsafe_load: bool = False
) -> tuple[TorchModel | OnnxModel, list[str], bool]:
    """The model at the start of the chain, warnings and notes of how it was loaded, and whether it comes trained."""
    messages = [UNSAFE_ALLOWED] if allow_unsafe_load else []
    if source.onnx:
        with blame(ConfigError, "task, the first examples of train"):
            example = example_inputs(task.train)
        opened, onnx_messages = open_onnx(source, task, example)
        return opened, messages + onnx_messages, True
    model, notes, trained = build_model(source, task)
    messages += notes
    if source.weights is not None:
        path = source.folder / source.weights
        messages += load_weights(model.module, path, sha256=source.sha256, allow_unsafe_load=allow_unsafe_load)
    return model, messages, trained or source.weights is not None


def build_model(source: ModelSource, task: Task) -> tuple[TorchModel, Sequence[str], bool]:
    """The model that the builder makes, as yet without the weights that `weights` names; notes; whether it is trained.

    A builder without a colon is one of pipeline/tasks/, such as huggingface, which fits a model to the task.
    """
    reference = Reference(use=source.use, arguments=source.arguments, folder=source.folder)
    with blame(ConfigError, "task, the first examples of train"):
        example = example_inputs(task.train)
    with blame(ConfigError, f"model ({source.use})"):
        if is_built_in(source.use):
            fit = find(source.use, source.folder, package="pipeline.tasks", attribute="model")
            start = fit(task, example, **_located(reference))
            return start.model, [*map(Note, start.notes)], start.trained
        notes = [Note(ELSEWHERE.format(source.arguments.get("of")))] if reference.is_lent else []
        return TorchModel.build(reference, example, task.axes), notes, False
