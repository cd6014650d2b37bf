"""What must hold of every stage, built in or to come."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.run.roundtrip import differing, save_exactly
from pipeline.stage import Context, Stage, forms
from stages.kd.student import Student
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
    "prune.vocabulary": {"max_unknown": 1},
    "export.onnx": {},
    "export.optimum": {},
    "export.seq2seq": {},
    "quantize.static": {},
    "quantize.dynamic": {},
    "quantize.optimum": {},
    "benchmark.latency": {"rounds": 2, "iterations": 20},
}

# What stages are given that do not take images: a task, and the builder of a model for it.
OWN = {
    "prune.vocabulary": (texts.task, Reference(use="texts.py:Bag", folder=HERE)),
    "export.optimum": (contexts.tiny_task, Reference(use="encoders.py:vit", folder=HERE)),
    "export.seq2seq": (translators.task, Reference(use="translators.py:marian", folder=HERE)),
}

every_stage = pytest.mark.parametrize("name", sorted(STAGES))


@pytest.fixture
def given(tiny: Callable[..., TorchModel], tmp_path: Path) -> Callable[[str], Model]:
    """given(name): a model in a form that the stage takes."""

    def make(name: str) -> Model:
        takes, _ = forms(STAGES[name])
        model = tiny()
        if name in OWN:
            torch.manual_seed(0)
            model = TorchModel.build(OWN[name][1], example_inputs(OWN[name][0]().train))
        return model if TorchModel in takes else deploy(model, tmp_path / "given" / "model.onnx")

    return make


@pytest.fixture
def context(context: Any, request: pytest.FixtureRequest) -> Callable[..., Context]:
    """The context of tests/conftest.py, on the stage's own task where it has one."""
    name = request.node.callspec.params["name"]
    task = OWN[name][0]() if name in OWN else None
    parts = ("train", "calibration", "validation", "loss", "decode", "score", "tokenizer")
    own = {part: getattr(task, part) for part in parts} if task else {}

    def make(**changes: Any) -> Context:
        made: Context = context(**{**own, **changes})
        return made

    make.reports = context.reports  # type: ignore[attr-defined]
    return make


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
def test_it_leaves_its_input_alone_and_what_it_makes_survives_save_and_load(
    name: str, given: Callable[[str], Model], context: Callable[..., Context], tmp_path: Path
) -> None:
    model = given(name)
    before = weights(model, tmp_path / "before")
    result = made(name).run(model, context(baseline=model))
    assert weights(model, tmp_path / "after") == before
    _, gives = forms(STAGES[name])
    assert isinstance(result, gives or type(model))
    save_exactly(result, tmp_path / "result", HERE)
    loaded = models.load(tmp_path / "result", HERE)
    inputs = model.example if name in OWN else {"input": torch.rand(5, 1, 8, 8)}
    assert not differing(result.predict(inputs), loaded.predict(inputs))


@every_stage
def test_the_same_seed_gives_the_same_model(
    name: str, given: Callable[[str], Model], context: Callable[..., Context], tmp_path: Path
) -> None:
    model, digests = given(name), []
    for attempt in range(2):
        torch.manual_seed(7)
        directory = tmp_path / f"work-{attempt}"
        directory.mkdir()
        result = made(name).run(model, context(baseline=model, seed=7, directory=directory))
        digests.append(weights(result, tmp_path / str(attempt)))
    assert digests[0] == digests[1]


@every_stage
def test_given_the_folder_of_an_earlier_attempt_it_makes_the_same_model_and_reports_the_same(
    name: str, given: Callable[[str], Model], context: Any, tmp_path: Path
) -> None:
    model, found = given(name), []
    work = tmp_path / "work"
    work.mkdir()
    for attempt in range(2):
        torch.manual_seed(7)
        result = made(name).run(model, context(baseline=model, seed=7, directory=work))
        found.append((weights(result, tmp_path / str(attempt)), {**context.reports}))
        context.reports.clear()
    assert found[0][0] == found[1][0]
    assert set(found[0][1]) == set(found[1][1])
    if not STAGES[name].host_bound:
        assert found[0][1] == found[1][1]


@every_stage
def test_it_writes_only_into_its_own_folder(
    name: str, given: Callable[[str], Model], context: Callable[..., Context], tmp_path: Path, monkeypatch: Any
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    model = given(name)
    made(name).run(model, context(baseline=model))
    assert not list(elsewhere.iterdir())


@every_stage
def test_nothing_that_is_saved_is_pickled(
    name: str, given: Callable[[str], Model], context: Callable[..., Context], tmp_path: Path
) -> None:
    model = given(name)
    made(name).run(model, context(baseline=model)).save(tmp_path / "saved")
    files = [p for folder in ("saved", "work") for p in (tmp_path / folder).rglob("*") if p.is_file()]
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
