"""A small file with packed weights."""

from pathlib import Path

import numpy as np
import onnx
import torch

from pipeline.model import OnnxModel
from stages.quantize.packing.graph import packed
from tests.graphs import graph, node


def ternary(path: Path, largest: int = 1) -> OnnxModel:
    """A table of three values, or more: ids (N,) -> rows (N, 64); `plain.onnx` beside it is the file before."""
    table = np.random.default_rng(0).integers(-largest, largest + 1, (64, 64)).astype(np.int8)
    nodes = [node("Gather", ["table", "ids"], ["rows"]), node("DequantizeLinear", ["rows", "scale"], ["y"])]
    weights = {"table": table, "scale": np.float32(0.5)}
    proto = graph(nodes, {"ids": (onnx.TensorProto.INT64, ["n"])}, {"y": ["n", 64]}, weights)
    onnx.save(proto, path.with_name("plain.onnx"))
    onnx.save(packed(proto).proto, path)
    return OnnxModel(path, {"ids": torch.arange(4)})
