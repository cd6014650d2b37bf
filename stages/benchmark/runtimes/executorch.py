"""ExecuTorch."""

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


class ExecuTorch(SeparateRuntime):
    """The torch model in fp32 on the CPU, lowered to XNNPACK.

    Choose it before the export, for phones whose apps have torch's own runtime. A conversion takes a minute.
    """

    forms: ClassVar[tuple[type, ...]] = (TorchModel,)
    fixed_batch: ClassVar[bool] = True
    runner: ClassVar[str] = "edge.executorch"
    environment: ClassVar[Environment] = Environment(
        "executorch", "executorch", ("executorch.runtime", "executorch.exir"), torch="2.13"
    )

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """A .pte file for so many examples."""
        torch_model: Any = model
        return self.converted(program_source(torch_model, folder, batch), folder, "model.pte")

    def batches(self, model: Model, ctx: Context, inputs: Inputs) -> Iterator[Inputs]:
        """The task's inputs, of pruned tokens where the model has them."""
        yield fed(model, inputs)
