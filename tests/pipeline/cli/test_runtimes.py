"""`shrink runtimes`: the list, and environments that are made by name."""

import json
from pathlib import Path

import pytest

from stages.benchmark.runtimes.ncnn import Ncnn
from tests.aliases import Make, Patch


def test_without_a_command_they_are_listed(shrink: Make) -> None:
    ended = shrink("runtimes", "--json")
    assert ended.code == 0
    names = {entry["name"] for entry in json.loads(ended.out)}
    assert {"onnxruntime", "torch", "ncnn", "mnn", "executorch", "litert"} <= names


def test_an_environment_is_asked_for_by_a_command_that_leaves_one_that_is_there(
    shrink: Make, monkeypatch: Patch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Ncnn(use="ncnn").missing() == "its environment is not made: shrink runtimes install ncnn"
    Ncnn.environment.folder.mkdir(parents=True)
    ended = shrink("runtimes", "install", "ncnn")
    assert (ended.code, ended.out.strip()) == (0, str(Ncnn.environment.folder))
    assert Ncnn(use="ncnn").missing() is None


@pytest.mark.parametrize(
    ("name", "message"),
    [("nccn", "did you mean `ncnn`"), ("onnxruntime", "onnxruntime has no environment of its own: onnxruntime ")],
)
def test_what_cannot_be_made_exits_2(shrink: Make, name: str, message: str) -> None:
    ended = shrink("runtimes", "install", name)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
