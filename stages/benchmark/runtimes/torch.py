"""Eager PyTorch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import JsonValue

from pipeline.base.batches import Inputs
from pipeline.context import Context
from pipeline.model import Model, TorchModel
from stages.benchmark.runtime import Runtime


class Torch(Runtime):
    """The torch model as it is called in Python, on the CPU.

    Choose it before the export, where the model is deployed in Python without one.
    """

    forms: ClassVar[tuple[type, ...]] = (TorchModel,)
    package: ClassVar[str] = "torch"
    travels: ClassVar[bool] = False

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """The saved model, and the user's folder with the files that it needs."""
        torch_model: Any = model
        torch_model.save(folder)
        place = folder.resolve()
        files: list[JsonValue] = [
            str(place / name) for name in ("model.json", "weights.safetensors")
        ]  # the example is not the model
        return {"model": str(place), "files": files, "folder": str(torch_model.builder.folder.resolve())}

    def batches(self, model: Model, ctx: Context, inputs: Inputs) -> Iterator[Inputs]:
        """The task's inputs as they are."""
        yield dict(inputs)
