"""A real torch.compile."""

import shutil

import pytest

from stages.benchmark.latency import Latency
from stages.benchmark.runtimes.torch_compile import CompiledTorch
from tests.aliases import Make, Patch


def test_without_a_compiler_it_says_so(monkeypatch: Patch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CXX", "some-c++")
    missing = CompiledTorch(use="torch_compile").missing()
    assert missing == "there is no C++ compiler (some-c++ or clang++): apt-get install g++, or set CXX to one"


@pytest.mark.slow
def test_it_answers_as_onnx_runtime_does(tiny: Make, context: Make) -> None:
    settings = {"runtimes": ["torch_compile"], "rounds": 1, "iterations": 5, "examples": 4}
    Latency.model_validate(settings).run(tiny(), context())
    (row,) = context.reports["latency"]  # type: ignore[attr-defined]
    assert (row["runtime"], row["agrees"], row["samples"]) == ("torch_compile", True, 5)
    assert row["agreement"]["decisions"] == 1.0
