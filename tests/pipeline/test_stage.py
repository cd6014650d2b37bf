"""A stage has strict settings, and is the one of its module."""

from pathlib import Path
from types import ModuleType

import pytest
from pydantic import Field, ValidationError

from pipeline.base.use import import_file
from pipeline.context import Context
from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from pipeline.stage import Stage, stage_class


class FromTorch(Stage):
    width: int = Field(default=1, ge=1)

    def run(self, model: TorchModel, ctx: Context) -> TorchModel: ...


def test_settings_are_frozen_and_strict() -> None:
    stage = FromTorch(width=3)
    with pytest.raises(ValidationError, match="frozen"):
        stage.width = 4
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        FromTorch(widht=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        FromTorch(width=0)


def test_a_stage_must_run() -> None:
    with pytest.raises(TypeError, match=r"abstract method '?run"):
        Stage()  # type: ignore[abstract]


@pytest.mark.parametrize(("source", "message"), [
    ("", r"defines 0 stages \(none\)"), ("class A(Stage): ...\nclass B(A): ...", r"defines 2 stages \(A, B\)"),
])  # fmt: skip
def test_a_module_must_define_one_stage(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "mine.py").write_text("from pipeline.stage import Stage\n" + source)
    module = import_file(tmp_path / "mine.py")
    with pytest.raises(ConfigError, match=message + "; expected exactly one"):
        stage_class(module)


def test_a_stage_that_a_module_only_imports_is_not_its_own() -> None:
    module = ModuleType("mine")
    module.Imported = FromTorch  # type: ignore[attr-defined]
    module.Own = type("Own", (FromTorch,), {"__module__": "mine"})  # type: ignore[attr-defined]
    assert stage_class(module) is module.Own
