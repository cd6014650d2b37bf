"""The list of stages and the schema say the same as the stages themselves."""

import copy
from collections.abc import Callable
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from rich.console import Console

from pipeline.cli.catalogue import (
    built_in_stages,
    describe,
    describe_runtimes,
    pipeline_schema,
    show,
    show_names,
    show_runtimes,
)
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[3]
CONFIG = yaml.safe_load((ROOT / "configs" / "digits" / "compress.yaml").read_text())


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = pipeline_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_every_file_with_a_stage_is_listed() -> None:
    bases = ("(Stage)", ", Stage)", "Distilling)", "SingleMethod)")
    files = [p for p in (ROOT / "stages").glob("[!k]*/*.py") if any(base in p.read_text() for base in bases)]
    assert sorted(built_in_stages()) == sorted(f"{p.parent.name}.{p.stem}" for p in files)
    assert {"train.supervised", "distill.logits", "prune.channels", "export.onnx"} <= set(built_in_stages())


def test_every_setting_has_help_a_type_and_a_default() -> None:
    for entry in describe():
        assert entry["help"].endswith("."), entry["name"]
        for setting in entry["settings"]:
            place = f"{entry['name']}: {setting['name']}"
            assert len(setting["help"]) > 5, place
            assert setting["type"] not in ("", "any"), place


def printed(show: Callable[..., None], *args: Any, **options: Any) -> str:
    console = Console(width=200, record=True, file=StringIO())
    show(*args, console, **options)
    return console.export_text()


def test_in_full_every_stage_and_setting_is_printed() -> None:
    text = printed(show, describe(), full=True)
    for entry in describe():
        assert f"{entry['name']}: " in text
        assert all(f"│ {setting['name']} " in text for setting in entry["settings"])


def test_without_a_name_each_stage_is_a_line() -> None:
    text = printed(show_names, describe())
    assert all(f"│ {entry['name']} " in text and entry["help"] in text for entry in describe())
    assert "temperature" not in text


def test_a_stage_shows_what_is_its_own_and_names_what_all_training_has() -> None:
    text = printed(show, describe(["quantize.aware"]))
    assert "│ bits " in text
    assert "│ epochs " in text  # with another default
    assert "│ batch_size " not in text
    assert "as train.supervised is: batch_size, " in text
    assert "│ batch_size " in printed(show, describe(["train.supervised"]))


def test_a_family_is_its_stages_and_a_name_that_there_is_not_is_told() -> None:
    names = [entry["name"] for entry in describe(["prune"])]
    others = ["prune.lowrank", "prune.sensitivity", "prune.transformers", "prune.vocabulary", "prune.weights"]
    assert names == ["prune.channels", "prune.layers", *others]
    with pytest.raises(ConfigError, match=r"there is no stage `distil.logits`; did you mean `distill.logits`"):
        describe(["distil.logits"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_schema_accepts_what_is_shipped(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(yaml.safe_load(path.read_text()))


def accepts(validator: jsonschema.Draft202012Validator, **changes: Any) -> bool:
    return bool(validator.is_valid({**copy.deepcopy(CONFIG), **changes}))


@pytest.mark.parametrize("changes", [
    {"stages": [{"use": "my_stage.py", "anything": 3}]},
    {"stages": [{"use": "distill.logits", "student": {"use": "n.py:net", "w": 3}, "teachers": ["n.py:net"]}]},
    {"stages": [{"use": "distill.logits", "student": "n.py:net", "teachers": [{"use": "n.py:net", "w": 3}]}]},
    {"task": "digits"},
    {"task": {"use": "data.py", "folder_of_mine": "x"}},
    {"model": {"use": "models.py:Net", "weights": "net.safetensors", "width": 3}},
    {"budget": {"size": {"max": "40 kB"}}},
    {"budget": {"size": {"max": 40000}, "macs": {"max": 5}}},
    {"seed": 3, "name": "mine", "device": "cpu"},
])  # fmt: skip
def test_the_schema_accepts_what_the_loader_accepts(validator: jsonschema.Draft202012Validator, changes: Any) -> None:
    assert accepts(validator, **changes)


@pytest.mark.parametrize("changes", [
    {"stages": [{"use": "export.onnx", "opsett": 20}]},
    {"stages": [{"use": "export.onnx", "opset": 17}]},
    {"stages": [{"use": "distil.logits"}]},
    {"stages": [{"use": "distill.logits"}]},
    {"stages": [{"opset": 20}]},
    {"stages": []},
    {"stagse": []},
    {"budget": {"size": {"min": 3}}},
    {"budget": {"retention": {"min": 0}}},
    {"seed": "x"},
    {"device": "tpu"},
])  # fmt: skip
def test_the_schema_refuses_what_the_loader_refuses(validator: jsonschema.Draft202012Validator, changes: Any) -> None:
    assert accepts(validator)
    assert not accepts(validator, **changes)


def test_the_schema_does_not_offer_what_no_file_may_hold() -> None:
    assert "folder" not in pipeline_schema()["properties"]


def test_every_runtime_is_listed_with_what_it_takes_and_whether_it_is_here() -> None:
    entries = {entry["name"]: entry for entry in describe_runtimes()}
    files = (ROOT / "stages" / "benchmark" / "runtimes").rglob("[!_]*.py")
    assert entries.keys() == {path.stem for path in files}
    assert entries["torch"]["takes"] == ["a torch model"]
    assert (entries["onnxruntime"]["missing"], entries["onnxruntime"]["version"]) == (None, version("onnxruntime"))
    assert [setting["name"] for setting in entries["openvino"]["settings"]] == ["precision"]
    console = Console(width=200, record=True, file=StringIO())
    show_runtimes(console)
    text = console.export_text()
    assert all(name in text for name in entries)


@pytest.mark.parametrize(("runtime", "is_valid"), [
    ("onnxruntime", True),
    ("mine.py", True),
    ({"use": "mine.py", "speed": 3}, True),
    ({"use": "openvino", "precision": "native"}, True),
    ("tvm", False),
    ({"use": "openvino", "precision": "f64"}, False),
    ({"precision": "f32"}, False),
])  # fmt: skip
def test_the_schema_knows_the_settings_of_runtimes(
    validator: jsonschema.Draft202012Validator, runtime: Any, is_valid: bool
) -> None:
    assert accepts(validator, stages=[{"use": "benchmark.latency", "runtimes": [runtime]}]) == is_valid
