"""PyTorch with torch.compile."""

import os
import shutil
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from pipeline.context import Context
from pipeline.model import Model
from stages.benchmark.runtimes.torch import Torch


class CompiledTorch(Torch):
    """The torch model compiled by Inductor, on the CPU.

    Choose it before the export, where the model is deployed in Python and may take seconds to start. What is compiled
    is kept for the other processes of the stage, so only the first of them compiles.
    """

    fixed_batch: ClassVar[bool] = True

    def missing(self) -> str | None:
        """Why it cannot run here: there is no C++ compiler."""
        names = [os.environ.get("CXX", "g++"), "clang++"]
        if any(map(shutil.which, names)):
            return super().missing()
        return f"there is no C++ compiler ({' or '.join(names)}): apt-get install g++, or set CXX to one"

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """As Torch, and a folder for what is compiled."""
        return {**super().convert(model, ctx, folder, batch), "cache": str((folder / "compiled").resolve())}
