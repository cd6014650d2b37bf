"""LiteRT."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import JsonValue

from pipeline.base.batches import Inputs
from pipeline.model import Model, TorchModel
from pipeline.stage import Context
from stages.benchmark.environments.environment import Environment
from stages.benchmark.environments.separate import SeparateRuntime
from stages.benchmark.environments.sources import fed, program_source


class LiteRT(SeparateRuntime):
    """The torch model in fp32 on the CPU, as a .tflite file.

    Choose it before the export, for Android and for boards that have TensorFlow Lite. Its environment takes a gigabyte.
    """

    forms: ClassVar[tuple[type, ...]] = (TorchModel,)
    fixed_batch: ClassVar[bool] = True
    runner: ClassVar[str] = "edge.litert"
    environment: ClassVar[Environment] = Environment(
        "litert", "ai-edge-litert", ("ai_edge_litert.interpreter", "litert_torch"), torch="2.13"
    )

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """A .tflite file for so many examples."""
        torch_model: Any = model
        return self.converted(program_source(torch_model, folder, batch), folder, "model.tflite")

    def batches(self, model: Model, ctx: Context, inputs: Inputs) -> Iterator[Inputs]:
        """The task's inputs, of pruned tokens where the model has them."""
        yield fed(model, inputs)
