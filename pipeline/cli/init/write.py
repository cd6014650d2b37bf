"""The text of a starting config, and the proof that it fits what it was written for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.base.formatting import flow
from pipeline.base.use import Reference
from pipeline.build.build import build_chain, check_budget, check_stages
from pipeline.build.config import ModelSource, PipelineConfig
from pipeline.build.syntax.validate import validate
from pipeline.cli.init.architecture import Kind
from pipeline.cli.init.facts import Facts, look
from pipeline.cli.init.presets import Preset, preset
from pipeline.cli.init.students import Student, students
from pipeline.cli.init.values import Target, values
from pipeline.context import Preview
from pipeline.errors import ConfigError
from pipeline.fit import check_chain
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Task

WHERE: dict[Target, str] = {"cpu": "a server's or a desktop's processor", "gpu": "a GPU", "edge": "a small device"}
NETWORK: dict[Kind, str] = {
    "convolutional": "a convolutional network",
    "feed-forward": "a network of dense layers",
    "transformer": "a transformer",
    "sequence": "an encoder-decoder",
    "recurrent": "a recurrent network",
    "other": "a network",
}
WHAT = {
    "distill.logits": "a smaller student learns what {} predicts",
    "distill.sequence": "a smaller student learns what {} generates",
    "prune.channels": "{} loses channels",
}
"""What makes a network smaller, by the stage that does it."""
DISTILLING = ("distill.logits", "distill.sequence")


def starting_config(
    model: dict[str, Any],
    task: dict[str, Any],
    target: Target,
    folder: Path,
    name: str = "my.yaml",
    *,
    allow_unsafe_load: bool = False,
) -> str:
    """The text of a config that `shrink plan` accepts.

    Args:
        model: `model:` of it, such as {"use": "models.py:net", "weights": "net.pt"} or {"onnx": "net.onnx"}.
        task: `task:` of it.
        target: where the model is to run.
        folder: where the file will lie, from which paths go.
        name: of the file, for its comments.
        allow_unsafe_load: unpickle weights that are more than tensors, where `model` has their sha256.

    Raises:
        ConfigError: model or task are not there, cannot be built or do not fit each other, or no stage would do.
    """
    at: dict[str, Any] = {"context": {"folder": folder}}
    source = validate(ModelSource, model, None, ("model",), folder)
    facts, built, preview = look(source, Reference.model_validate(task, **at), allow_unsafe_load=allow_unsafe_load)
    refused: ConfigError | None = None
    for student in _candidates(facts, preview):
        stages = preset(facts, target, student=student is not None)
        if student is not None and not set(DISTILLING) & set(stages):
            continue  # it would be of no use
        text = _render(facts, target, stages, student, model=model, task=task, name=name)
        try:
            _check(text, folder, facts, built, preview)
        except ConfigError as error:
            refused = error
            continue
        return text
    raise refused or ConfigError("no chain was found", where="shrink init")


def _candidates(facts: Facts, preview: Preview) -> Iterator[Student | None]:
    """Ways to make the model smaller for a student, and at last none."""
    if isinstance(preview.model, TorchModel):
        yield from students(preview.model, facts)
    yield None


def _render(facts: Facts, target: Target, stages: Preset, student: Student | None, **arguments: Any) -> str:
    """The template filled in."""
    loader = PackageLoader("pipeline.cli.init", "templates")
    environment = Environment(  # text, not HTML: nothing is to be escaped
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    texts = {key: flow(arguments[key]) for key in ("model", "task")}
    return environment.get_template("config.yaml.j2").render(
        **texts,
        name=arguments["name"],
        facts=facts,
        target=target,
        where=WHERE[target],
        what=_what(facts, stages),
        stages=stages,
        student=flow({"shrink_of": "teacher", **(student.arguments if student else {})}),
        values=values(facts, target, stages, student),
    )


def _what(facts: Facts, stages: Preset) -> str:
    """What the stages do to the model, in a clause."""
    clauses = [WHAT[stage] for stage in stages if stage in WHAT] or ["{} keeps its structure"]
    done = clauses[0].format("an ONNX file" if facts.onnx else NETWORK[facts.kind])
    done += "".join(clause.format(",") for clause in clauses[1:])
    if "quantize.aware" in stages:
        return done + ", and its weights become integers of 4 bits"
    return done + (", and becomes int8" if any(stage.startswith("quantize.") for stage in stages) else "")


def _check(text: str, folder: Path, facts: Facts, task: Task, preview: Preview) -> None:
    """Raise ConfigError where a stage does not fit the model, the task, or those before it."""
    data = {**yaml.safe_load(text), "folder": folder}
    config: PipelineConfig = validate(PipelineConfig, data, None, (), folder)
    baseline = build_chain(config.baseline, "baseline", folder, None)
    stages = build_chain(config.stages, "stages", folder, None)
    check_chain(stages, check_chain(baseline, OnnxModel if facts.onnx else TorchModel))
    check_stages(baseline, stages, preview)
    check_budget(config, task, stages)
