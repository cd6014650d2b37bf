"""Graphs quantized by a stage and run beside the fp32 ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from pipeline.model import OnnxModel
from pipeline.stage import Stage
from pipeline.task import Split
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.static import StaticQuantization
from tests.contexts import reporting_context
from tests.graphs import graph

STATIC, DYNAMIC = StaticQuantization(reduce_range=True), DynamicQuantization(reduce_range=True)
PER_TENSOR = StaticQuantization(reduce_range=True, per_channel=False)
RNG = np.random.default_rng(0)
LOW = np.finfo(np.float32).min


def draw(*shape: int) -> Any:
    return (RNG.normal(size=shape) * 0.2).astype(np.float32)


def old(nodes: Any, *ends: Any, opset: int = 17, ir: int = 8, **rest: Any) -> onnx.ModelProto:
    return graph(nodes, *ends, **rest, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


class Ran:
    """A graph quantized by a stage: `model` and `before`, what was reported, warned and how far apart they are."""

    def __init__(self, stage: Stage, proto: onnx.ModelProto, data: Mapping[str, torch.Tensor], folder: Path) -> None:
        onnx.save(proto, folder / "net.onnx")
        rows = [({name: value[i] for name, value in data.items()}, 0) for i in range(len(next(iter(data.values()))))]
        self.warnings: list[str] = []
        ctx, reports = reporting_context(folder / "stage", Split(rows), warn=self.warnings.append)  # type: ignore[arg-type]
        self.before = OnnxModel(folder / "net.onnx", {name: value[:2] for name, value in data.items()})
        self.model: OnnxModel = stage.run(self.before, ctx)
        self.report = reports["quantization"]
        self.graph = onnx.load(self.model.path).graph
        name = proto.graph.output[0].name
        a, b = (model.predict(dict(data))[name] for model in (self.before, self.model))
        self.error = float((a - b).abs().max() / (a.max() - a.min()))


def images(*shape: int) -> torch.Tensor:
    return torch.randn(64, *shape, generator=torch.Generator().manual_seed(0))
