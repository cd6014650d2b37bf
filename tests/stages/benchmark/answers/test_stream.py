"""A runtime answers batches of a task's inputs, whatever number of examples it takes at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch

from pipeline.base.batches import Inputs
from pipeline.errors import Interruption, StageError
from pipeline.forms.sandbox.calls import Calls, State, Value
from pipeline.forms.sandbox.session import Outside
from pipeline.model import OnnxModel
from stages.benchmark.answers.stream import Stream
from stages.benchmark.runtimes.onnxruntime import OnnxRuntime
from tests.aliases import Make
from tests.graphs import graph, node

VALUES = torch.randn(11, 5, generator=torch.Generator().manual_seed(0))
WEIGHTS = np.random.default_rng(0).normal(size=(5, 3))


class InFours(OnnxRuntime):
    """Takes four examples, neither more nor less."""

    fixed_batch: ClassVar[bool] = True


def product(path: Path, batch: str | int, **rest: Any) -> OnnxModel:
    """(batch, 5) -> what is multiplied (batch, 3), and the sum of each example (batch,)."""
    nodes = [node("MatMul", ["input", "w"], ["output"]), node("ReduceSum", ["input", "axis"], ["sum"], keepdims=0)]
    outputs: dict[str, Any] = {"output": [batch, 3], "sum": [batch]}
    onnx.save(graph(nodes, {"input": [batch, 5]}, outputs, {"w": WEIGHTS, "axis": np.array([1])}), path)
    return OnnxModel(path, {"input": VALUES[:2]}, **rest)


def stream(model: OnnxModel, context: Make, runtime: OnnxRuntime, size: int = 4, **rest: Any) -> Stream:
    ctx = context(**rest)
    spec = {"runner": "onnxruntime", "model": str(model.path), "threads": 1}
    return Stream(runtime, model, ctx, spec, ctx.directory, size, piece=2 * 4 * 5 * 4)


def batches(size: int) -> Iterator[Inputs]:
    return ({"input": values} for values in VALUES.split(size))


FREE, FOURS = OnnxRuntime(use="onnxruntime"), InFours(use="onnxruntime")


@pytest.mark.parametrize(
    ("runtime", "file", "size"),
    [(FREE, "batch", 3), (FOURS, 4, 3), (FOURS, 4, 6), (FREE, 4, 11), (FOURS, 4, 8)],
)
def test_outputs_are_those_of_the_batch_as_it_was_asked(
    tmp_path: Path, context: Make, runtime: OnnxRuntime, file: str | int, size: int
) -> None:
    outside = Outside({}, {"output": "logits"}, calls=Calls(4)) if runtime is FREE and file == 4 else None
    model = product(tmp_path / "m.onnx", file, outside=outside)
    found = list(stream(model, context, runtime)(batches(size)))
    assert len(found) == -(-11 // size)
    for values, outputs in zip(VALUES.split(size), found, strict=True):
        torch.testing.assert_close(outputs["output"], values @ torch.tensor(WEIGHTS, dtype=torch.float32))
        torch.testing.assert_close(outputs["sum"], values.sum(1))
        assert ("logits" in outputs) is (outside is not None)


def test_a_file_with_states_is_not_asked_and_a_stop_is_heard(tmp_path: Path, context: Make) -> None:
    states = {"h": State("sum", Value("float32", (0,)))}
    model = product(tmp_path / "m.onnx", "batch", outside=Outside({}, {}, calls=Calls(states=states)))
    with pytest.raises(StageError, match="its file has states, which calls hand on"):
        list(stream(model, context, FREE)(batches(3)))
    free = product(tmp_path / "m.onnx", "batch")
    with pytest.raises(Interruption, match="while a runtime answered"):
        list(stream(free, context, FREE, interrupted=lambda: True)(batches(3)))
