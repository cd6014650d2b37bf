"""Extras: what each brings, and what is said where it is not installed."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline.base.code import extras
from pipeline.base.code.extras import EXTRAS, expect_extra
from pipeline.errors import ConfigError
from tests.aliases import Patch

PROJECT = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]


def test_extras_are_those_of_the_project() -> None:
    given = {
        name: tuple(Requirement(one).name for one in needed)
        for name, needed in PROJECT["optional-dependencies"].items()
        if name != "dev"
    }
    assert given == EXTRAS


@pytest.mark.parametrize(("present", "problem"), [
    ({"optimum": "2.1.0"}, "optimum-onnx is not installed"),
    ({}, "optimum is not installed and optimum-onnx is not installed"),
    ({"optimum": "2.1.0", "optimum-onnx": "0.1.0", "transformers": "5.24.0"},
     "optimum-onnx takes transformers<4.58.0,>=4.36, and 5.24.0 is installed"),
    ({"optimum": "2.1.0", "optimum-onnx": "0.1.0", "transformers": "4.57.6"}, ""),
])  # fmt: skip
def test_an_extra_that_is_not_whole_is_told_with_the_command(
    present: dict[str, str], problem: str, monkeypatch: Patch
) -> None:
    needs = {"optimum-onnx": ["optimum~=2.1.0", "transformers<4.58.0,>=4.36", 'optimum<1; extra == "tests"']}
    monkeypatch.setattr(extras, "version", present.get)
    monkeypatch.setattr(extras.metadata, "requires", needs.get)
    if not problem:
        expect_extra("optimum")
        return
    message = f"stages[0]: it needs the extra `optimum`: {problem}. pip install 'shrinkline[optimum]'."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        expect_extra("optimum", "stages[0]")
