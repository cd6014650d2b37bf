"""Damaged pipeline files and overrides, and the ONNX files and weights that they name: each is told in a line."""

import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from pipeline.base.use import Reference
from pipeline.errors import ConfigError
from pipeline.forms.sandbox.check import check
from pipeline.model import TorchModel
from tests.fuzz.faults import VALUES, bytes_with_fault
from tests.fuzz.trials import Trial, problems
from tests.pipeline.conftest import CHAIN
from tests.pipeline.forms.sandbox.foreign_files import classifier
from tests.users import chain_of

ALIASES = """compare: {seeds: 2, axes: &axes [size, latency]}
seed: 3
"""
KEYS = ["seed", "name", "device", "limit", "task", "task.use", "model", "model.use", "model.weights", "stages",
        "stages.0", "stages.0.strength", "stages.1.use", "budget.size.max", "budget.expected",
        "compare.axes", "", "0"]  # fmt: skip
TEXTS = ["&a [*a]", "!!int ''", "!!bool 3", "!!timestamp 3", '"a\\0b"', "*a", "{<<: 3}", "[" * 300, "1e999", "../../x",
         "/", "~", "{use: 3}", "[1, {}]", "!!set {a}", "2020-13-45", "models.py:flat", "os:system", "3: 4"]  # fmt: skip
WORDS = [
    "use",
    "task",
    "stages",
    "baseline",
    "budget",
    "strength",
    "noise.py",
    "export.onnx",
    "min",
    "max",
    "{",
    "}",
    "- ",
]
ONE_OF = 30
"""Configs that fit of which one is built, which takes longer than all that is looked at before."""


def damaged(work: Path, random: Random) -> Trial:
    """A pipeline file with faults, or with an override that does not fit."""
    words = ["plan", "chain.yaml"]
    if as_override := random.random() < 0.3:
        value = random.choice([*TEXTS, *map(repr, VALUES[:9])])
        words += ["--set", f"{random.choice(KEYS)}={value}"]
    return Trial(tuple(words), partial(change, random, as_override))


def change(random: Random, as_override: bool, work: Path) -> None:
    file = work / "chain.yaml"
    content = file.read_bytes()
    if not as_override and random.random() < 0.5:
        word = random.choice(WORDS).encode()
        content = content.replace(word, random.choice([*TEXTS, *WORDS, ""]).encode(), random.choice((1, -1)))
    elif not as_override:
        content = bytes_with_fault(content, random)
    file.write_bytes(content)
    few(ONE_OF)


def few(one_of: int) -> None:
    """Have one of so many configs built, and the others end where that would begin."""
    from pipeline.build import build as module

    if not hasattr(module, "whole"):
        module.whole, calls = module.build, count()  # type: ignore[attr-defined]

        def build(*args: Any, **kwargs: Any) -> Any:
            if next(calls) % one_of:
                raise ConfigError("it fits")
            return module.whole(*args, **kwargs)  # type: ignore[attr-defined]

        module.build = build


def damaged_file(work: Path, random: Random) -> Trial:
    """An ONNX file, or weights in safetensors, with a fault."""
    name, words = random.choice(
        [
            ("net.onnx", ("plan", "onnx.yaml")),
            ("weights.safetensors", ("plan", "weights.yaml")),
            ("saved/model.json", ("plan", "teacher.yaml")),
            ("saved/weights.safetensors", ("plan", "teacher.yaml")),
        ]
    )
    return Trial(words, partial(spoil, work / name, random))


def spoil(file: Path, random: Random, _: Path) -> None:
    content = bytes_with_fault(file.read_bytes(), random)
    file.unlink()  # other copies have it too
    file.write_bytes(content)


@pytest.fixture
def files(quick: Callable[..., Path], tmp_path: Path) -> Path:
    """A user's folder with pipeline files that name an ONNX file, weights, and a saved teacher."""
    teacher = "distill.logits, teachers: [{saved: saved}], student: {use: models.py:flat}, epochs: 1"
    folder = quick(
        CHAIN + ALIASES,
        **{
            "onnx.yaml": chain_of("quantize.dynamic", model="onnx: net.onnx"),
            "weights.yaml": chain_of("export.onnx", model="use: models.py:flat, weights: weights.safetensors"),
            "teacher.yaml": chain_of(teacher, baseline="noise.py"),
        },
    ).parent
    classifier(folder / "net.onnx")
    reference = Reference(use="models.py:flat", folder=folder)
    TorchModel.build(reference, {"input": torch.rand(2, 1, 8, 8)}).save(folder / "saved")
    shutil.copyfile(folder / "saved" / "weights.safetensors", folder / "weights.safetensors")
    return folder


@pytest.mark.slow
def test_damaged_pipeline_files(files: Path, tmp_path: Path) -> None:
    assert problems(tmp_path / "trials", files, damaged, 1000) == []


@pytest.mark.slow
def test_damaged_files_that_are_named(files: Path, tmp_path: Path) -> None:
    assert problems(tmp_path / "trials", files, damaged_file, 100) == []


@pytest.mark.slow
def test_damaged_graphs_are_refused_by_their_bytes_or_pass(tmp_path: Path) -> None:
    content, file = classifier(tmp_path / "net.onnx").read_bytes(), tmp_path / "damaged.onnx"
    ends = Counter[str]()
    for seed in range(500):
        file.write_bytes(bytes_with_fault(content, Random(seed)))
        try:
            check(file)
            ends["passed"] += 1
        except ConfigError as error:
            ends["refused" if error.where == f"model {file}" else "without its place"] += 1
    print(f"500 inputs: {dict(ends)}")  # noqa: T201
    assert not ends["without its place"]
    assert ends["refused"] > 100
