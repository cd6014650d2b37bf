"""What goes in and out of the deployed file, against the file and the data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto

from pipeline.deploy import deploy
from pipeline.errors import StageError
from pipeline.measure.interface import interface
from pipeline.model import OnnxModel
from pipeline.records.parts.interface import Port
from pipeline.runner import run
from pipeline.task import CALIBRATION_EXAMPLES, Split, Task
from pipeline.tasks import digits
from tests.aliases import Make
from tests.graphs import graph, node


def test_ports_have_what_was_seen_on_the_calibration_examples(task: Task, tiny: Make, tmp_path: Path) -> None:
    deployed = deploy(tiny(), tmp_path / "model.onnx")
    found = interface(deployed, replace(task, labels=("a", "b", "c", "d"), preprocessing="noise from 0 to 1.4"))
    images = torch.stack([task.calibration[i][0]["input"] for i in range(len(task.calibration))])
    (given,), (gives,) = found.inputs, found.outputs
    assert (given.name, given.shape, given.dtype) == ("input", [1, 8, 8], "float32")
    assert (given.low, given.high) == (float(images.min()), float(images.max()))
    assert given.mean == pytest.approx(float(images.double().mean()))
    outputs = deployed.predict({"input": images})["output"]
    assert (gives.name, gives.shape, gives.dtype) == ("output", [4], "float32")
    assert (gives.low, gives.high) == pytest.approx((float(outputs.min()), float(outputs.max())))
    assert gives.mean == pytest.approx(float(outputs.double().mean()), abs=1e-6)
    assert (found.labels, found.preprocessing) == (["a", "b", "c", "d"], "noise from 0 to 1.4")


def gather(path: Path, dims: list[Any]) -> OnnxModel:
    """A file that takes token ids and gives a vector for each; its table is an input too, as in old ones."""
    ends = {"ids": (TensorProto.INT64, dims), "table": [10, 2]}, {"vectors": [*dims, 2]}
    table = {"table": torch.arange(20.0).reshape(10, 2)}
    onnx.save(graph([node("Gather", ["table", "ids"], ["vectors"])], *ends, table), path)
    return OnnxModel(path, {"ids": torch.zeros(2, 3, dtype=torch.int64)})


def tokens(task: Task, count: int, high: int = 10) -> Task:
    drawn = torch.randint(0, high, (count, 3), generator=torch.Generator().manual_seed(0))
    split = Split([({"ids": row, "unused": torch.zeros(1)}, 0) for row in drawn])
    return replace(task, train=split, calibration=split)


@pytest.mark.parametrize(("dims", "shape"), [(["batch", 3], [3]), (["batch", "length"], [-1]), (["batch", None], [-1])])
def test_an_axis_left_open_is_minus_one(task: Task, tmp_path: Path, dims: list[Any], shape: list[int]) -> None:
    found = interface(gather(tmp_path / "model.onnx", dims), tokens(task, 40))
    assert found.inputs == [Port(name="ids", shape=shape, dtype="int64", low=0, high=9, mean=found.inputs[0].mean)]
    assert found.outputs[0].shape == [*shape, 2]
    assert (found.outputs[0].low, found.outputs[0].high) == (0, 19)


def test_no_more_than_the_first_calibration_examples_are_looked_at(task: Task, tmp_path: Path) -> None:
    many = tokens(task, CALIBRATION_EXAMPLES + 40, high=5)
    many.calibration[CALIBRATION_EXAMPLES][0]["ids"][:] = 9
    assert interface(gather(tmp_path / "model.onnx", ["batch", 3]), many).inputs[0].high == 4


def test_a_file_that_does_not_run_on_them_is_an_error(task: Task, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="looking at the interface"):
        interface(gather(tmp_path / "model.onnx", ["batch", 3]), tokens(task, 40, high=30))


def test_values_that_are_not_finite_are_left_out(task: Task, tiny: Make, tmp_path: Path) -> None:
    model = tiny()
    model.module.head.bias.data[2] = float("nan")
    found = interface(deploy(model, tmp_path / "nan.onnx"), task)
    assert (found.outputs[0].low, found.outputs[0].mean) == (None, None)
    assert found.inputs[0].mean is not None


def test_the_digits_say_what_they_are() -> None:
    task = digits.task()
    assert list(task.labels) == list("0123456789")
    image = task.train[0][0]["input"]
    assert (image.shape, float(image.min()), float(image.max())) == ((1, 8, 8), 0, 1)
    assert all(word in task.preprocessing for word in ("float32 (1, 8, 8)", "divided by 16"))


def test_a_run_keeps_the_interface_of_its_last_file(quick: Make) -> None:
    chain = quick()
    record = run(chain, runs=chain.parent / "runs", track=False)
    assert [(port.name, port.shape) for port in record.interface.inputs] == [("input", [1, 8, 8])]
    assert [(port.name, port.shape) for port in record.interface.outputs] == [("output", [4])]
