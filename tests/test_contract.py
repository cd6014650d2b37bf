"""What must hold of every stage, built in or to come."""

import hashlib
import re
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from pipeline import model as models
from pipeline.base.files import folder_digest
from pipeline.base.use import Reference
from pipeline.build.probe import example_inputs
from pipeline.cli.catalogue import built_in_stages
from pipeline.deploy import deploy
from pipeline.fit import forms
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.run.roundtrip import differing, save_exactly
from pipeline.stage import Stage
from pipeline.task import Task
from stages.kd.student import Student
from stages.quantize.aware import AwareQuantization
from stages.quantize.static import StaticQuantization
from tests import contexts, texts, translators

pytestmark = pytest.mark.anew

STAGES = built_in_stages()
HERE = Path(__file__).parent

# The least that each stage needs, so that it runs in seconds on the tiny task. A new stage must be added here.
STUDENT = Student(use="conftest.py:TinyNet", arguments={"width": 4}, folder=HERE)
SETTINGS: dict[str, dict[str, Any]] = {
    "train.supervised": {"epochs": 1},
    "distill.logits": {"student": STUDENT, "epochs": 1},
    "distill.combine": {"student": STUDENT, "epochs": 1, "terms": [{"use": "labels"}, {"use": "logits"}]},
    "distill.features": {"student": STUDENT, "epochs": 1, "layers": [["conv2", "conv2"]]},
    "distill.attention": {"student": STUDENT, "epochs": 1, "layers": [["conv2", "conv2"]]},
    "distill.relations": {"student": STUDENT, "epochs": 1},
    "distill.sequence": {
        "student": STUDENT,
        "epochs": 1,
        "generate": Reference(use="conftest.py:answers", folder=HERE),
        "pad": 0,
    },
    "distill.itself": {"epochs": 1, "generations": 2},
    "prune.channels": {"macs": 0.5, "round_to": 1, "recovery": {"epochs": 1}},
    "prune.layers": {"blocks": 0, "examples": 8, "recovery": {"epochs": 1}},
    "prune.lowrank": {"macs": 0.7, "round_to": 1, "recovery": {"epochs": 1}},
    "prune.transformers": {"macs": 0.7, "round_to": 1, "recovery": {"epochs": 1}},
    "prune.vocabulary": {"max_unknown": 1},
    "prune.weights": {"sparsity": 0.5, "method": "sparsegpt", "recovery": {"epochs": 1}},
    "export.onnx": {},
    "export.optimum": {},
    "export.seq2seq": {},
    "quantize.static": {},
    "quantize.dynamic": {},
    "quantize.aware": {"epochs": 1},
    "quantize.optimum": {},
    "quantize.pack": {},
    "quantize.weights": {},
    "quantize.half": {},
    "prune.sensitivity": {"examples": 8},
    "quantize.sensitivity": {"examples": 8},
    "quantize.bisect": {"examples": 8},
    "quantize.aware_bisect": {"examples": 8},
    "benchmark.latency": {"runtimes": ["onnxruntime"], "rounds": 1, "iterations": 20},
}

# What stages are given that do not take images: a task, and the builder of a model for it.
TINY = Reference(use="conftest.py:TinyNet", arguments={"width": 8}, folder=HERE)
OWN = {
    "prune.vocabulary": (texts.task, Reference(use="texts.py:Bag", folder=HERE)),
    "prune.layers": (contexts.tiny_task, Reference(use="encoders.py:vit", folder=HERE)),
    "prune.transformers": (contexts.tiny_task, Reference(use="encoders.py:vit", folder=HERE)),
    "export.optimum": (contexts.tiny_task, Reference(use="encoders.py:vit", folder=HERE)),
    "export.seq2seq": (translators.task, Reference(use="translators.py:marian", folder=HERE)),
}

every_stage = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[getattr(pytest.mark, stage.extra)] if stage.extra else [])
        for name, stage in sorted(STAGES.items())
    ],
)


def given(name: str, folder: Path) -> tuple[Task, Model]:
    """A task for a stage, and a model in a form that the stage takes."""
    takes, _ = forms(STAGES[name])
    own, builder = OWN.get(name, (contexts.tiny_task, TINY))
    task = replace(own(), as_target=contexts.as_target)
    torch.manual_seed(0)
    model = TorchModel.build(builder, example_inputs(task.train))
    if name == "quantize.aware_bisect":
        return task, AwareQuantization(epochs=1).run(model, contexts.context_of(task, folder))
    if TorchModel in takes:
        return task, model
    exported = deploy(model, folder / "given" / "model.onnx")
    if name != "quantize.pack":
        return task, exported
    return task, StaticQuantization().run(exported, contexts.context_of(task, folder / "quantized"))


class Attempt(NamedTuple):
    result: Model
    digest: str
    reports: dict[str, Any]


class Attempts(NamedTuple):
    """A stage's run, one with the same seed in another folder, and one in the folder of the first."""

    model: Model
    before: str
    first: Attempt
    elsewhere: Attempt
    again: Attempt


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Attempts, Path]]:
    """attempts(name): the runs of a stage, made once, and the folder that holds all that they wrote."""

    @cache
    def make(name: str) -> tuple[Attempts, Path]:
        folder = tmp_path_factory.mktemp(name)
        task, model = given(name, folder)

        def deployed(model: Model) -> OnnxModel:
            return model if isinstance(model, OnnxModel) else deploy(model, folder / "deployed" / f"{id(model)}.onnx")

        def attempt(work: str, saved: str) -> Attempt:
            reports: dict[str, Any] = {}
            (folder / work).mkdir(exist_ok=True)
            changes: dict[str, Any] = {"baseline": model, "report": reports.__setitem__, "deployed": deployed}
            torch.manual_seed(7)
            result = made(name).run(model, contexts.context_of(task, folder / work, seed=7, **changes))
            return Attempt(result, weights(result, folder / saved), reports)

        before = weights(model, folder / "before")
        (folder / "cwd").mkdir()
        with chdir(folder / "cwd"):
            runs = attempt("work", "saved"), attempt("other", "saved-other"), attempt("work", "saved-again")
        return Attempts(model, before, *runs), folder

    return make


Make = Callable[[str], tuple[Attempts, Path]]


def made(name: str) -> Stage:
    return STAGES[name].model_validate(SETTINGS[name])


def weights(model: Model, directory: Path) -> str:
    model.save(directory)
    return folder_digest(directory)


def test_every_stage_is_under_contract() -> None:
    assert set(STAGES) == set(SETTINGS)


@every_stage
def test_settings_are_frozen_and_strict(name: str) -> None:
    stage = made(name)
    field = next(iter(type(stage).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(stage, field, getattr(stage, field))
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        STAGES[name].model_validate({**SETTINGS[name], "no_such_setting": 1})


@every_stage
def test_it_is_documented(name: str) -> None:
    stage = STAGES[name]
    assert re.match(r"\S.*\.\n", stage.__doc__ or ""), "one line that says what comes out"
    assert all(field.description for field in stage.model_fields.values())
    readme = HERE.parent / "stages" / name.split(".")[0] / "README.md"
    assert name in readme.read_text()


@every_stage
def test_it_leaves_its_input_alone_and_what_it_makes_survives_save_and_load(name: str, attempts: Make) -> None:
    runs, folder = attempts(name)
    assert weights(runs.model, folder / "after") == runs.before
    result = runs.first.result
    _, gives = forms(STAGES[name])
    assert isinstance(result, gives or type(runs.model))
    save_exactly(result, folder / "result", HERE)
    loaded = models.load(folder / "result", HERE)
    inputs = runs.model.example if name in OWN else {"input": torch.rand(5, 1, 8, 8)}
    assert not differing(result.predict(inputs), loaded.predict(inputs))


@every_stage
def test_the_same_seed_gives_the_same_model(name: str, attempts: Make) -> None:
    runs, _ = attempts(name)
    assert runs.first.digest == runs.elsewhere.digest


@every_stage
def test_in_the_folder_of_an_earlier_attempt_it_makes_the_same_model_and_reports(name: str, attempts: Make) -> None:
    runs, _ = attempts(name)
    assert runs.first.digest == runs.again.digest
    assert set(runs.first.reports) == set(runs.again.reports)
    if not STAGES[name].host_bound:
        assert without_timings(runs.first.reports) == without_timings(runs.again.reports)


def without_timings(reports: dict[str, Any]) -> dict[str, Any]:
    """What is reported, but for what a machine took for it."""
    return {
        name: {key: value for key, value in report.items() if key not in ("load_ms", "peak_bytes")}
        for name, report in reports.items()
        if isinstance(report, dict)
    } | {name: report for name, report in reports.items() if not isinstance(report, dict)}


@every_stage
def test_it_writes_only_into_its_own_folder(name: str, attempts: Make) -> None:
    _, folder = attempts(name)
    assert not list((folder / "cwd").iterdir())


@every_stage
def test_nothing_that_is_saved_is_pickled(name: str, attempts: Make) -> None:
    _, folder = attempts(name)
    files = [p for top in ("saved", "work") for p in (folder / top).rglob("*") if p.is_file()]
    assert {p.suffix for p in files} <= {".safetensors", ".json", ".onnx", ".npy", ".npz", ".data"}
    # Safetensors begin with the length of their header, whose first byte may be anything.
    assert not any(p.read_bytes().startswith(b"\x80") for p in files if p.suffix != ".safetensors")
    for file in (p for p in files if p.suffix == ".safetensors"):
        load_file(file)


def test_a_digest_tells_one_changed_bit(tiny: Callable[..., TorchModel], tmp_path: Path) -> None:
    tiny().save(tmp_path / "model")
    before = folder_digest(tmp_path / "model")
    file = tmp_path / "model" / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert folder_digest(tmp_path / "model") != before
    assert hashlib.sha256(content).digest() != before.encode()


def test_both_forms_load_through_one_door(tiny: Callable[..., TorchModel], tmp_path: Path) -> None:
    model = tiny()
    model.save(tmp_path / "torch")
    deploy(model, tmp_path / "x.onnx").save(tmp_path / "onnx")
    assert isinstance(models.load(tmp_path / "torch", HERE), TorchModel)
    assert isinstance(models.load(tmp_path / "onnx"), OnnxModel)
