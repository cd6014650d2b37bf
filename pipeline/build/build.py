"""Config -> objects, checked: all that can fail before any work fails here."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.base.code.recorder import recorder
from pipeline.base.code.seen import Seen
from pipeline.base.devices import set_seed
from pipeline.base.use import find
from pipeline.build.config import PipelineConfig, StageConfig
from pipeline.build.onnx_input import check_stages_take_onnx
from pipeline.build.probe import SplitSummary, probe, varies, varying
from pipeline.build.source import Source
from pipeline.build.start import build_task, start_model
from pipeline.build.syntax.declared import check_entries
from pipeline.build.syntax.validate import validate
from pipeline.build.tensors import tensor_digests
from pipeline.build.trial import try_out
from pipeline.context import Preview
from pipeline.errors import ConfigError, Note, blame
from pipeline.fit import check_chain
from pipeline.gate.expected import load_expected
from pipeline.gate.limited import check_choosing, check_rows
from pipeline.measure.statistics.samples import samples_needed
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.stage import Stage, stage_class
from pipeline.task import Task, highest

Chain = tuple[tuple[str, Stage], ...]
"""Stages with their places, such as "stages[1] (prune.channels)"."""


@dataclass(frozen=True)
class Built:
    """Everything that a run needs, and what looks suspicious about it."""

    config: PipelineConfig
    task: Task
    data: dict[str, SplitSummary]
    model: Model
    baseline: Chain
    stages: Chain
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    loading: tuple[str, ...] = ()
    """Those of the notes that say how the model was loaded; the record of a run repeats them."""
    seen: dict[str, Seen] = field(default_factory=dict)
    """What users' code was seen to read, by the place of the stage that it is of; "task" and "model" aside."""
    whole: Task | None = None
    """The task before its kind was told, with the examples that cannot be scored."""

    def seen_by(self, stage: Stage) -> Seen:
        """What the code of a stage of these was seen to read."""
        return next(self.seen[place] for place, own in (*self.baseline, *self.stages) if own is stage)


def build(
    config: PipelineConfig, source: Source | None = None, like: Built | None = None, *, allow_unsafe_load: bool = False
) -> Built:
    """Import, construct and check everything that a config names.

    Args:
        config: what to build.
        source: the parsed file, for line numbers in errors.
        like: built before, whose task is taken where it is the same one, so that data are read once.
        allow_unsafe_load: unpickle weights that are more than tensors, where `model:` has their sha256; it runs code of
            theirs. No config can say so.

    Raises:
        ConfigError: anything that cannot work.
        ForeignError: an ONNX file from outside crashed the process that ran it.
    """
    if recorder().refresh():
        like = None
    set_seed(config.seed)  # the task may draw a split and the model its first weights
    seen = dict[str, Seen]()
    baseline = build_chain(config.baseline, "baseline", config.folder, source, seen)
    stages = build_chain(config.stages, "stages", config.folder, source, seen)
    if config.model.onnx:
        check_stages_take_onnx((*baseline, *stages), config.model.onnx.file)
    check_chain(stages, check_chain(baseline, OnnxModel if config.model.onnx else TorchModel))
    whole, data, seen["task"] = _read_task(config, source, like)
    with _at(source, "model"):
        model, loading, trained = start_model(config.model, whole, allow_unsafe_load=allow_unsafe_load)
    with _at(source, "task"), recorder().watch(f"{config.task.label} {config.limit} tried") as tried_seen:
        whole = replace(whole, **_marked(whole, data))
        task, tried = try_out(whole, model, data)
    seen["task"].add(tried_seen)
    if isinstance(model, OnnxModel):
        model.close()  # until it is needed again; where strategies are compared there are many of them
    built = Built(config, task, data, model, baseline, stages, (), seen=seen, whole=whole)
    messages = _messages(built, loading, tried)
    with _at(source, "budget"):
        messages += check_budget(config, task, stages)
    with _at(source, "choose"):
        check_choosing(config.choosing, stages)
    if not trained and not baseline:
        messages.append("the model is untrained: there is no `weights:` and no `baseline:`, so retention says nothing")
    warned = dict.fromkeys(text for text in messages if not isinstance(text, Note))
    return replace(built, warnings=tuple(warned), notes=_notes(messages), loading=_notes(loading))


def _read_task(
    config: PipelineConfig, source: Source | None, like: Built | None
) -> tuple[Task, dict[str, SplitSummary], Seen]:
    """The task as it is written, what its splits hold, and what its code was seen to read."""
    same = like and all(getattr(like.config, key) == getattr(config, key) for key in ("task", "seed", "limit"))
    if like and like.whole and same:
        return like.whole, like.data, like.seen["task"]
    with _at(source, "task"), recorder().watch(f"{config.task.label} {config.limit}") as seen:
        whole = build_task(config.task, config.limit)
        data = probe(whole)
        seen.weights |= tensor_digests(whole)
    return whole, data, seen


def _messages(built: Built, loading: Sequence[str], tried: Sequence[str]) -> list[str]:
    """Warnings and notes of the task, the model and the stages; what these built is seen too."""
    # Of a few examples the highest label says little of how many classes there are.
    doubtful = _notes(tried) if built.config.limit else tried
    preview = Preview(built.model, built.task, isa=built.config.isa)
    return [
        *map(Note, getattr(built.whole, "notes", ())),
        *loading,
        *doubtful,
        *varying(built.task),
        *check_stages(built.baseline, built.stages, preview, built.seen, built.config),
        *unseen(built.seen),
        *in_vain(built.stages),
        *unpacked(built.stages),
    ]


def _notes(messages: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in messages if isinstance(text, Note))


@contextmanager
def _at(source: Source | None, key: str) -> Iterator[None]:
    """Adds the line of a key of the file to an error's place."""
    try:
        yield
    except ConfigError as error:
        if source:
            error.where = ": ".join(filter(None, (source.place((key,)), error.where)))
        raise


def _marked(task: Task, data: dict[str, SplitSummary]) -> dict[str, Any]:
    """The splits of a task that do not say yet whether they vary, saying it."""
    silent = {name: split for name, split in task.splits.items() if split.varies is None}
    return {name: replace(split, varies=varies(name, split, data[name])) for name, split in silent.items()}


def build_chain(
    entries: list[StageConfig], key: str, folder: Path, source: Source | None, seen: dict[str, Seen] | None = None
) -> Chain:
    """The stages of one list of the config, each validated against its own settings; `seen` gets what they read."""
    chain, seen = [], {} if seen is None else seen
    check_entries(entries, key, source)
    for i, entry in enumerate(entries):
        at = (key, i)
        place, label = f"{key}[{i}] ({entry.use})", f"{folder.resolve()} {entry.model_dump_json()}"
        where = source.place((*at, "use")) if source else f"{key}[{i}]"
        with blame(ConfigError, where), recorder().watch(label) as seen[place]:
            named = find(entry.use, folder, package="stages")
            chosen = named if isinstance(named, type) and issubclass(named, Stage) else stage_class(named)
            if inspect.isabstract(chosen):
                raise ConfigError(f"`{chosen.__name__}` has no `run`", expected="a method run(self, model, ctx)")
        stage = validate(chosen, entry.settings, source, at, folder)
        chain.append((place, stage))
    return tuple(chain)


def check_stages(
    baseline: Chain,
    stages: Chain,
    preview: Preview,
    seen: dict[str, Seen] | None = None,
    config: PipelineConfig | None = None,
) -> list[str]:
    """Each stage's own check against what stands before it; gives the warnings and notes with their places.

    What is built in a check, such as a teacher, has the weights that the config's seed gives it, and `seen` gets their
    digests.
    """
    warnings: list[str] = []
    before: list[Stage] = []
    seen = {} if seen is None else seen
    for i, (place, stage) in enumerate((*baseline, *stages)):
        stage_outlook = replace(preview, in_baseline=i < len(baseline))
        set_seed(config.seed if config else 0)
        label = f"{config.folder.resolve() if config else ''} {place} {stage.model_dump_json()}"
        with blame(ConfigError, place), recorder().watch(label, weighs=True) as checked:
            warnings += [type(text)(f"{place}: {text}") for text in stage.check(tuple(before), stage_outlook)]
        seen.setdefault(place, Seen()).add(checked)
        before.append(stage)
    return warnings


def in_vain(stages: Chain) -> Iterator[str]:
    """A warning of each stage that takes nothing of the model that comes in, for those before it have no effect."""
    for i, (place, stage) in enumerate(stages):
        places = [earlier for earlier, other in stages[:i] if not other.host_bound]
        if places and not stage.builds_on_incoming():
            fix = "Let the model that comes in teach (`teacher: incoming`), or leave them out"
            have = "have" if len(places) > 1 else "has"
            reason = f"{place} takes nothing of the model that comes in"
            yield f"{', '.join(places)} {have} no effect on the end: {reason}. {fix}"


def unpacked(stages: Chain) -> Iterator[Note]:
    """A note of each stage that may give weights of few bits, where none behind it stores them so."""
    for i, (place, stage) in enumerate(stages):
        if stage.packable() and not any(other.packs for _, other in stages[i + 1 :]):
            text = "weights of fewer than 8 bits stand in the ONNX file as integers of 8 bits, which saves no bytes"
            yield Note(f"{place}: {text}. Put quantize.pack behind it for a smaller file")


def unseen(seen: dict[str, Seen]) -> list[str]:
    """A warning for each piece of users' code that reads where it cannot be seen."""
    return [
        f"{place}: it starts {', '.join(sorted(pieces.children))}, and what another process reads is in no key: when "
        "that changes, have results made anew with another folder for --runs"
        for place, pieces in seen.items()
        if pieces.children
    ]


def check_budget(config: PipelineConfig, task: Task, stages: Chain) -> list[str]:
    """Notes that the test split is too small to tell the budget's margin, and warns of latency not of the last model.

    Raises:
        ConfigError: what a benchmark measures is limited and no stage measures it, or none in the runtime that a limit
            names; a limit is told of an expected.json that is not there; or no score can keep it.
    """
    load_expected(config.budget, config.folder)
    warnings = check_rows(config.budget, stages)
    best, least = highest(task.score), config.budget.score
    if least and best is not None and least.min > best:
        problem = f"`score` is {least.min:g}, and that of this task is {best} at best"
        raise ConfigError(problem, where="budget", fix="Write `90 %` or 0.9" if best else "Write a number below 0")
    limit = config.budget.retention
    if limit is None or limit.min >= 1:
        return warnings
    needed = samples_needed(limit.min)
    if len(task.test) >= needed:
        return warnings
    return [
        *warnings,
        Note(
            f"budget: {len(task.test)} test examples can hardly decide a retention of {limit.min:g}; about {needed} "
            "would, for a model as good as the baseline that differs from it on 5 % of the examples"
        ),
    ]


def outline(built: Built) -> list[tuple[str, dict[str, Any]]]:
    """Places and resolved settings, defaults included."""
    return [(place, stage.model_dump(mode="json")) for place, stage in (*built.baseline, *built.stages)]
