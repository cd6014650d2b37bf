"""Config -> objects, checked: all that can fail before any work fails here."""

import inspect
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model

from pipeline.config import ModelSource, PipelineConfig, Source, StageConfig, validate
from pipeline.errors import ConfigError, blame
from pipeline.expected import load_expected
from pipeline.model import Model, TorchModel
from pipeline.probe import Sighting, example_inputs, probe, try_out
from pipeline.stage import Note, Outlook, Stage, check_chain, stage_class
from pipeline.statistics import samples_needed
from pipeline.task import Task
from pipeline.use import Reference, find, nearest

Chain = tuple[tuple[str, Stage], ...]
"""Stages with their places, such as "stages[1] (prune.channels)"."""


WRAPPINGS = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class Built:
    """Everything that a run needs, and what looks suspicious about it."""

    config: PipelineConfig
    task: Task
    data: dict[str, Sighting]
    model: Model
    baseline: Chain
    stages: Chain
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()


def build(config: PipelineConfig, source: Source | None = None, like: Built | None = None) -> Built:
    """Import, construct and check everything that a config names.

    Args:
        config: what to build.
        source: the parsed file, for line numbers in errors.
        like: built before, whose task is taken where it is the same one, so that data are read once.

    Raises:
        ConfigError: anything that cannot work.
    """
    baseline = build_chain(config.baseline, "baseline", config.folder, source)
    stages = build_chain(config.stages, "stages", config.folder, source)
    form = check_chain(baseline, TorchModel)
    check_chain(stages, form)
    if like and like.config.task == config.task and like.config.seed == config.seed:
        task, data = like.task, like.data
    else:
        with _at(source, "task"):
            task = build_task(config.task)
            data = probe(task)
    with _at(source, "model"):
        model = build_model(config.model, task)
    with _at(source, "task"):
        try_out(task, model, data)
    examples = {name: len(split) for name, split in task.splits.items()}
    outlook = Outlook(
        model, examples, task.logits, augmented=task.augment is not None, as_target=task.as_target is not None
    )
    said = check_stages(baseline, stages, outlook)
    notes = [text for text in said if isinstance(text, Note)]
    with _at(source, "budget"):
        doubts = check_budget(config, task, stages)
    warnings = [*(text for text in said if not isinstance(text, Note)), *doubts]
    if config.model.weights is None and not baseline:
        warnings.append("the model is untrained: there is no `weights:` and no `baseline:`, so retention says nothing")
    return Built(config, task, data, model, baseline, stages, tuple(dict.fromkeys(warnings)), tuple(notes))


@contextmanager
def _at(source: Source | None, key: str) -> Iterator[None]:
    """Adds the line of a key of the file to an error's place."""
    try:
        yield
    except ConfigError as error:
        if source:
            error.where = ": ".join(filter(None, (source.place((key,)), error.where)))
        raise


def build_chain(entries: list[StageConfig], key: str, folder: Path, source: Source | None) -> Chain:
    """The stages of one list of the config, each validated against its own settings."""
    chain = []
    for i, entry in enumerate(entries):
        at = (key, i)
        with blame(ConfigError, source.place((*at, "use")) if source else f"{key}[{i}]"):
            named = find(entry.use, folder, package="stages")
            chosen = named if isinstance(named, type) and issubclass(named, Stage) else stage_class(named)
            if inspect.isabstract(chosen):
                raise ConfigError(f"`{chosen.__name__}` has no `run`", expected="a method run(self, model, ctx)")
        stage = validate(chosen, entry.settings, source, at, folder)
        chain.append((f"{key}[{i}] ({entry.use})", stage))
    return tuple(chain)


def build_task(reference: Reference) -> Task:
    """The task that a reference names: a built-in one, or the function `task` of a user's file."""
    where = f"task ({reference.use})"
    with blame(ConfigError, where):
        function = find(reference.use, reference.folder, package="pipeline.tasks", attribute="task")
        task = function(**reference.arguments)
    if not isinstance(task, Task):
        raise ConfigError(f"it gave {type(task).__name__}", where=where, expected="a pipeline.task.Task")
    return task


def build_model(source: ModelSource, task: Task) -> TorchModel:
    """The model at the start of the chain, with its weights when it comes trained."""
    reference = Reference(use=source.use, arguments=source.arguments, folder=source.folder)
    with blame(ConfigError, "task, the first examples of train"):
        example = example_inputs(task.train)
    with blame(ConfigError, f"model ({source.use})"):
        model = TorchModel.build(reference, example)
    if source.weights is not None:
        load_weights(model, source.folder / source.weights)
    return model


def load_weights(model: TorchModel, path: Path) -> None:
    """Load a state dict into a model that was just built; code in the file is never run.

    Raises:
        ConfigError: there is no such file, it holds more than tensors, or its keys or shapes do not fit.
    """
    where = f"model weights {path}"
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        raise ConfigError(f"there is no such file{nearest(path.name, beside)}", where=where)
    with blame(ConfigError, where, fix="The builder must make the module that the weights come from"):
        if path.suffix == ".safetensors":
            load_model(model.module, path)  # knows tied weights, which such a file holds once
            return
        model.module.load_state_dict(unwrapped(_unpickle(path)))


def unwrapped(state: Any) -> dict[str, Any]:
    """The state dict inside the common wrappings: a key such as "state_dict", names that begin with "module."."""
    for key in WRAPPINGS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise ConfigError(f"it holds a {type(state).__name__}", expected="a state dict, as module.state_dict() gives")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _unpickle(path: Path) -> Any:
    with blame(ConfigError, f"model weights {path}", fix="It must be a file that torch.save wrote"):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            fix = "Save module.state_dict() instead"
            raise ConfigError("it holds more than tensors, or is damaged", fix=fix) from error


def check_stages(baseline: Chain, stages: Chain, outlook: Outlook) -> list[str]:
    """Each stage's own check against what stands before it; gives the warnings and notes with their places."""
    warnings: list[str] = []
    before: list[Stage] = []
    for i, (place, stage) in enumerate((*baseline, *stages)):
        seen = replace(outlook, in_baseline=i < len(baseline))
        with blame(ConfigError, place):
            warnings += [type(text)(f"{place}: {text}") for text in stage.check(tuple(before), seen)]
        before.append(stage)
    return warnings


def check_budget(config: PipelineConfig, task: Task, stages: Chain) -> list[str]:
    """Warns where the test split is too small to tell the budget's margin, and where latency is not the last model's.

    Raises:
        ConfigError: latency is limited and no stage measures it, or a limit is told of an expected.json that is not
            there.
    """
    load_expected(config.budget, config.folder)
    warnings = _check_latency(stages) if config.budget.latency else []
    limit = config.budget.retention
    if limit is None or limit.min >= 1:
        return warnings
    needed = samples_needed(limit.min)
    if len(task.test) >= needed:
        return warnings
    return [
        *warnings,
        f"budget: {len(task.test)} test examples can hardly decide a retention of {limit.min:g}; about {needed} would, "
        "for a model as good as the baseline that differs from it on 5 % of the examples",
    ]


def _check_latency(stages: Chain) -> list[str]:
    measuring = [i for i, (_, stage) in enumerate(stages) if stage.host_bound]
    if not measuring:
        fix = "Add `- {use: benchmark.latency}` to stages"
        raise ConfigError("latency is limited and no stage measures it", where="budget", fix=fix)
    later = [place for place, _ in stages[measuring[-1] + 1 :]]
    return [f"budget: latency is measured before {later[0]}, whose model may be another"] if later else []


def outline(built: Built) -> list[tuple[str, dict[str, Any]]]:
    """Places and resolved settings, defaults included."""
    return [(place, stage.model_dump(mode="json")) for place, stage in (*built.baseline, *built.stages)]
