"""The sensitivity of layers, beside an evaluation of a whole file for each layer and width."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.stats
import torch
from onnx import numpy_helper

from pipeline.errors import StageError
from pipeline.forms.sandbox.process import DEFAULT
from pipeline.forms.sandbox.session import Outside
from pipeline.measure.agreement import kl_divergence
from pipeline.model import OnnxModel
from pipeline.task import Task
from stages.quantize.mixed.measuring import Sensitivity
from stages.quantize.rounding.settings import schemes_of
from tests.contexts import context_of

OPERATORS = ("Conv", "MatMul", "Gemm")


def rounded(array: Any, bits: int, axis: int) -> Any:
    """Symmetric rounding with a scale of the largest weight of each channel, as 8 bits have it."""
    highest = 2 ** (bits - 1) - 1
    others = tuple(i for i in range(array.ndim) if i != axis)
    scale = np.abs(array).max(others, keepdims=True) / highest
    return (np.round(array / scale).clip(-highest, highest) * scale).astype(np.float32)


def test_it_is_the_divergence_of_a_file_in_which_one_layer_is_rounded(
    exported: OnnxModel, task: Task, tmp_path: Path
) -> None:
    ctx = context_of(task, tmp_path / "stage")
    rows = Sensitivity(schemes_of([8]), "float", OPERATORS, examples=64).of(exported, ctx)
    assert [row.operator for row in rows] == ["Conv", "Conv", "Gemm", "Gemm"]
    assert [row.elements for row in rows] == [72, 576, 512, 64]
    inputs = {"input": torch.stack([task.calibration.dataset[i][0] for i in range(64)])}
    before = exported.predict(inputs)["output"]
    for row in rows:
        proto = onnx.load(exported.path)
        (node,) = (n for n in proto.graph.node if n.name == row.nodes[0])
        (weight,) = (t for t in proto.graph.initializer if t.name == node.input[1])
        weight.CopyFrom(numpy_helper.from_array(rounded(numpy_helper.to_array(weight), 8, 0), weight.name))
        onnx.save(proto, tmp_path / "one.onnx")
        after = OnnxModel(tmp_path / "one.onnx", inputs).predict(inputs)["output"]
        divergence = 16 * float(kl_divergence(before / 4, after / 4, task.labelling).mean())
        assert row.effects == {"8": pytest.approx(divergence, rel=0.05, abs=1e-9)}


def test_a_file_from_outside_gives_the_same(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    outside = replace(exported, outside=Outside(limits=DEFAULT))
    rows = [
        Sensitivity(schemes_of([4]), "static", OPERATORS, examples=64).of(model, context_of(task, tmp_path / name))
        for name, model in {"ours": exported, "outside": outside}.items()
    ]
    assert rows[0] == rows[1]


def test_fewer_bits_do_more_and_the_order_of_layers_is_that_of_whole_evaluations(
    exported: OnnxModel, task: Task, tmp_path: Path
) -> None:
    ctx = context_of(task, tmp_path / "stage")
    few, many = (
        Sensitivity(schemes_of([8, 4, 2]), "static", OPERATORS, examples=n).of(exported, ctx) for n in (64, 512)
    )
    effects = np.array([[row.effects[bits] for bits in "842"] for row in few])
    assert (np.diff(effects, axis=1) > 0).all()
    every = np.array([[row.effects[bits] for bits in "842"] for row in many])
    assert scipy.stats.spearmanr(effects.ravel(), every.ravel()).statistic > 0.9


def test_it_is_measured_once_for_a_store(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    folders: dict[str, Path] = {}

    def kept(what: str, model: Any, parts: Any, make: Any) -> Path:
        key = f"{what} {sorted(parts.items())}"
        if key not in folders:
            folders[key] = tmp_path / str(len(folders))
            folders[key].mkdir()
            make(folders[key])
        return folders[key]

    ctx = context_of(task, tmp_path / "stage", kept=kept)
    one, again = (Sensitivity(schemes_of([8]), "static", OPERATORS, examples=32).of(exported, ctx) for _ in range(2))
    assert [asdict(row) for row in one] == [asdict(row) for row in again]
    assert len(folders) == 1
    Sensitivity(schemes_of([4]), "static", OPERATORS, examples=32).of(exported, ctx)
    assert len(folders) == 2


def test_a_graph_without_such_weights_is_an_error(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no node of LSTM has a constant weight; there are .*Conv.*Name others"):
        Sensitivity(schemes_of([8]), "float", ["LSTM"]).of(exported, context_of(task, tmp_path / "stage"))
