"""Runtimes by name and from files of a user's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from pipeline.errors import StageError
from pipeline.task import Split
from stages.benchmark.latency import Latency
from tests.aliases import Make
from tests.contexts import preview_of, refused
from tests.graphs import products

DATA: Split = Split([(torch.rand(64), 0) for _ in range(9)])  # type: ignore[arg-type]
OURS = '''
from typing import ClassVar
from stages.benchmark.runtime import Runtime


class Doubling(Runtime):
    """Twice what ONNX Runtime gives."""

    package: ClassVar[str] = "numpy"
    factor: float = 2.0

    def convert(self, model, ctx, folder, batch):
        return {**super().convert(model, ctx, folder, batch), "factor": self.factor}
'''
RUNNER = """
import dataclasses
from stages.benchmark.runners import onnxruntime


def load(spec):
    loaded = onnxruntime.load(spec)
    answers = lambda raw: {name: value * spec["factor"] for name, value in loaded.answers(raw).items()}
    return dataclasses.replace(loaded, answers=answers)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a runtime of a user's."""
    (tmp_path / "doubling.py").write_text(OURS)
    (tmp_path / "doubling_runner.py").write_text(RUNNER)
    return tmp_path


def made(runtimes: list[Any], folder: Path, **rest: Any) -> Latency:
    settings = {"runtimes": runtimes, "rounds": 1, "iterations": 5, "examples": 8, **rest}
    return Latency.model_validate(settings, context={"folder": folder})


@pytest.mark.parametrize(("runtime", "message"), [
    ("onnxruntim", "did you mean `onnxruntime`"),
    ({"use": "openvino", "precison": "f32"}, "runtime openvino: `precison`"),
    ({"use": "openvino", "precision": "f64"}, "runtime openvino: `precision`"),
    ({"precision": "f32"}, "each runtime is a name, or a mapping with `use`"),
    ("absent.py", "there is no file"),
    (3, "valid dictionary or instance of Runtime"),
])  # fmt: skip
def test_what_names_no_runtime_is_refused(runtime: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        made([runtime], tmp_path)


def test_a_bare_name_stays_one_in_the_record() -> None:
    stage = Latency.model_validate({"runtimes": ["onnxruntime", "openvino", {"use": "torch", "required": True}]})
    openvino = {"use": "openvino", "precision": "f32", "required": False}
    assert stage.model_dump(mode="json")["runtimes"] == ["onnxruntime", openvino, {"use": "torch", "required": True}]
    assert Latency.model_validate(stage.model_dump(mode="json")) == stage


def test_settings_of_a_row_are_those_that_its_figures_depend_on(tmp_path: Path) -> None:
    stage = Latency.model_validate(
        {"runtimes": [{"use": "ncnn", "timeout": 5}, "openvino"]}, context={"folder": tmp_path}
    )
    assert [runtime.settings for runtime in stage.runtimes] == [{}, {"precision": "f32"}]


def test_one_that_is_not_installed_is_refused_before_work(folder: Path, tiny: Make) -> None:
    path = folder / "doubling.py"
    path.write_text(OURS.replace('"numpy"', '"no-such-package"'))
    message = r"`runtimes` has doubling, which cannot run here: no-such-package is not installed: pip install no-such-p"
    refused(message, made(["doubling.py"], folder).check([], preview_of(tiny())))


def test_a_users_runtime_is_timed_and_its_answers_are_compared(folder: Path, context: Make) -> None:
    warnings: list[str] = []
    model, ctx = products(folder / "m.onnx", 2, width=64), context(warn=warnings.append, calibration=DATA)
    made([{"use": "doubling.py", "factor": 1}, "doubling.py"], folder).run(model, ctx)
    once, twice = context.reports["latency"]  # type: ignore[attr-defined]
    assert (once["runtime"], once["settings"], once["agrees"]) == ("doubling", {"factor": 1.0}, True)
    assert (twice["settings"], twice["agrees"], twice["agreement"]["examples"]) == ({"factor": 2.0}, False, 8)
    assert twice["samples"] == 5
    assert (twice["score"], twice["reasons"]["score"]) == (None, "no test examples are here")
    assert [text.startswith("doubling: its answers differ from ONNX Runtime's") for text in warnings[-1:]] == [True]


def test_one_that_fails_is_skipped_unless_it_is_required(folder: Path, context: Make) -> None:
    (folder / "doubling_runner.py").write_text("def load(spec):\n    raise SystemExit('it knows no Gemm')\n")
    warnings: list[str] = []
    model, ctx = products(folder / "m.onnx", 2, width=64), context(warn=warnings.append, calibration=DATA)
    made(["doubling.py", "onnxruntime"], folder).run(model, ctx)
    skipped, row = context.reports["latency"]  # type: ignore[attr-defined]
    assert "it knows no Gemm" in skipped["skipped"]
    assert (row["runtime"], row["samples"]) == ("onnxruntime", 5)
    assert "doubling: not timed: the process that answered" in warnings[-1]
    with pytest.raises(StageError, match="it knows no Gemm"):
        made([{"use": "doubling.py", "required": True}, "onnxruntime"], folder).run(model, ctx)
