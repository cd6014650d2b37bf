"""A good file, and a user's folder that has one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.forms.sandbox.foreign_files import classifier


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return classifier(tmp_path / "net.onnx")


@pytest.fixture
def folder(project: Callable[..., Path]) -> Callable[..., Path]:
    """folder(chain, make=classifier, **how): a user's folder with net.onnx; gives the path of its pipeline file."""

    def make(chain: str, make: Callable[..., Path] = classifier, **how: Any) -> Path:
        path = project(chain)
        make(path.parent / "net.onnx", **how)
        return path

    return make
