"""PyTorch on a GPU."""

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field, JsonValue

from pipeline.context import Context
from pipeline.model import Model
from stages.benchmark.gpu import no_gpu
from stages.benchmark.runtimes.torch import Torch


class CudaTorch(Torch):
    """The torch model in fp32 on a GPU of NVIDIA's, with the copies of its inputs and outputs.

    Choose it before the export, where the model is deployed in Python on a server with one.
    """

    travels: ClassVar[bool] = False

    graphs: bool = Field(default=False, description="replay a CUDA graph instead of starting each kernel")
    compiled: bool = Field(default=False, description="compile it by Inductor")

    def absent(self) -> str | None:
        """That there is no GPU."""
        return no_gpu()

    def missing(self) -> str | None:
        """Why torch does not use the GPU, and what helps."""
        if torch.version.cuda is None:
            return f"torch {torch.__version__} is built without CUDA: install a build for it from https://pytorch.org"
        if not torch.cuda.is_available():
            return f"torch {torch.__version__} is built for CUDA {torch.version.cuda}: install a driver that has it"
        return super().missing()

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """As Torch, how to run it, and a folder for what is compiled."""
        how: dict[str, JsonValue] = {"graphs": self.graphs, "compiled": self.compiled}
        return {**super().convert(model, ctx, folder, batch), **how, "cache": str((folder / "compiled").resolve())}
