"""ExecuTorch."""

from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from pipeline.context import Context
from pipeline.model import Model
from stages.benchmark.environments.environment import Environment
from stages.benchmark.environments.separate import SeparateRuntime
from stages.benchmark.environments.sources import Programs, Source


class ExecuTorch(SeparateRuntime):
    """The model on the CPU, lowered to XNNPACK: in fp32, or in int8 with the integers and scales of a quantized file.

    Choose it for phones whose apps have torch's own runtime. A conversion takes a minute.
    """

    fixed_batch: ClassVar[bool] = True
    runner: ClassVar[str] = "edge.executorch"
    needs: ClassVar[tuple[str, ...]] = ("torch", "numpy")
    source: ClassVar[Source] = Programs()
    file: ClassVar[str] = "model.pte"
    environment: ClassVar[Environment] = Environment(
        "executorch", "executorch", ("executorch.runtime", "executorch.exir"), torch="2.13"
    )

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """The file that its converter writes for so many examples, and what it computes in."""
        place = super().convert(model, ctx, folder, batch)
        return {**place, "precision": (folder / self.file).with_suffix(".txt").read_text()}
