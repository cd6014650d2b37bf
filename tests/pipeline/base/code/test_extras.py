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


@pytest.mark.parametrize(("present", "absent"), [
    (("optimum", "optimum-onnx"), ""),
    (("optimum",), "optimum-onnx is not installed"),
    ((), "optimum and optimum-onnx are not installed"),
])  # fmt: skip
def test_an_extra_that_is_not_whole_is_told_with_the_command(
    present: tuple[str, ...], absent: str, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(extras, "version", dict.fromkeys(present, "1").get)
    if not absent:
        expect_extra("optimum")
        return
    message = f"stages[0]: it needs the extra `optimum`, of which {absent}. pip install 'shrinkline[optimum]'."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        expect_extra("optimum", "stages[0]")
