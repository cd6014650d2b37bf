"""What must hold of each step of a run: its file loads, answers as the model before it, and is as small as it says."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime import InferenceSession

from pipeline import model as models
from pipeline.records.parts.models import ModelRecord
from pipeline.records.record import Record
from pipeline.task import Task
from tests.chains import HERE

FLOATS, HALVES, DECISIONS = 1e-3, 1e-2, 0.9
"""How far outputs of floats may be from those before, halves as a share of the range; the share of equal decisions."""

PRODUCTS = {"MatMul", "Gemm"}
ROUNDED = {
    "quantize.static": ({"Conv", "Gather", "Add"} | PRODUCTS, 8.0),
    "quantize.dynamic": ({"Gather"} | PRODUCTS, 8.0),
    "quantize.weights": ({"Gather"} | PRODUCTS, 4 + (32 + 4) / 32),  # of 32 weights a scale and a zero point
    "quantize.aware": (None, 8.0),
}
"""The operators whose weights a stage rounds, None for all, and the bits that are left of each number."""

MORE = 1.2, 1500
"""How much larger than that a payload may be, by share and by bytes: scales, zero points, shapes."""


def prove(record: Record, task: Task) -> None:
    """All steps of a run."""
    assert record.baseline
    folder = Path(record.folder)
    inputs = next(iter(task.test.loader(len(task.test)))).inputs["input"]
    for (earlier, before), (name, after) in pairwise(record.models):
        prove_size(name, after, record.baseline if name == "distill.logits" else before, folder)
        prove_answers(name, after, earlier, before, folder, inputs)


def prove_answers(
    name: str, stage: ModelRecord, earlier: str, before: ModelRecord, folder: Path, inputs: torch.Tensor
) -> None:
    """The file loads in ONNX Runtime, and answers as the step says."""
    after, old = answers(folder / stage.file, inputs), answers(folder / before.file, inputs)
    assert np.isfinite(after).all()
    if name == "export.onnx":
        old = next(iter(models.load(folder / before.folder, HERE).predict({"input": inputs}).values())).numpy()
        if earlier != "quantize.aware":  # of which a value between two integers is rounded to either
            assert np.abs(after - old).max() < FLOATS
    if name == "quantize.pack":
        assert np.array_equal(after, old)
    if name == "quantize.half":
        assert np.abs(after - old).max() < HALVES * np.ptp(old)
    if name == "quantize.aware":  # which trains, so that it may decide otherwise, but not worse
        assert stage.score >= before.score - 1 + DECISIONS
    elif name.startswith(("quantize.", "export.")):
        assert (after.argmax(1) == old.argmax(1)).mean() >= DECISIONS, name


def prove_size(name: str, stage: ModelRecord, before: ModelRecord, folder: Path) -> None:
    """The record's bytes are the file's, and as many as the step's bits leave."""
    path = folder / stage.file
    assert stage.size_bytes == path.stat().st_size
    assert stage.payload_bytes == sum(map(stored_bytes, onnx.load(path).graph.initializer))
    if name == "distill.logits":
        assert stage.payload_bytes < 0.8 * before.payload_bytes
    if name in ("prune.channels", "prune.lowrank"):
        assert stage.payload_bytes < 0.9 * before.payload_bytes
    if name == "export.onnx":
        assert stage.size_bytes == before.size_bytes
    if name == "quantize.pack":
        assert stage.size_bytes < before.size_bytes
    if name == "quantize.half":
        assert 0.5 <= stage.payload_bytes / before.payload_bytes < 0.53
    if name in ROUNDED:
        least = left(onnx.load(folder / before.file).graph, *ROUNDED[name])
        share, more = MORE
        assert 0.98 * least <= stage.payload_bytes <= share * least + more, (name, least)


def left(graph: onnx.GraphProto, operators: set[str] | None, bits: float) -> float:
    """Bytes of the constants of a graph in floats where matrices that these operators read have so many bits."""
    read = {name for node in graph.node if operators is None or node.op_type in operators for name in node.input}
    rounded = [tensor.name in read and len(tensor.dims) > 1 for tensor in graph.initializer]
    sizes = [
        bits / 8 * math.prod(tensor.dims) if less else stored_bytes(tensor)
        for tensor, less in zip(graph.initializer, rounded, strict=True)
    ]
    return sum(sizes)


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Of its numbers as they lie in the file."""
    four = {onnx.TensorProto.INT4, onnx.TensorProto.UINT4}
    bits = 4 if tensor.data_type in four else 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return math.ceil(math.prod(tensor.dims) * bits / 8)


def answers(path: Path, inputs: torch.Tensor) -> np.ndarray:
    """The first output of a file."""
    return InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": inputs.numpy()})[0]
