"""MNN."""

from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from pipeline.model import Model
from pipeline.stage import Context
from stages.benchmark.environments.environment import Environment
from stages.benchmark.environments.separate import SeparateRuntime
from stages.benchmark.environments.sources import graph_source


class Mnn(SeparateRuntime):
    """The fp32 ONNX file on the CPU, converted by MNN.

    Choose it for phones, also for transformers. It does not take quantized files.
    """

    runner: ClassVar[str] = "edge.mnn"
    environment: ClassVar[Environment] = Environment("mnn", "mnn", ("MNN", "_tools"))

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """A .mnn file for any number of examples."""
        return self.converted(graph_source(ctx.deployed(model).path), folder, "model.mnn")
