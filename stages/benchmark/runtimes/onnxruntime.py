"""ONNX Runtime."""

from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from pipeline.context import Context
from pipeline.model import Model, OnnxModel, Seq2SeqOnnx, TorchModel
from stages.benchmark.decoding import decoding_warning
from stages.benchmark.runtime import Runtime


class OnnxRuntime(Runtime):
    """The deployed ONNX file on the CPU.

    Choose it where nothing else is asked for: scores and predictions are those of this runtime, too.
    """

    forms: ClassVar[tuple[type, ...]] = (TorchModel, OnnxModel, Seq2SeqOnnx)
    package: ClassVar[str] = "onnxruntime"
    is_reference: ClassVar[bool] = True

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """The file that is deployed; of packed weights that are decoded at each call there is a warning."""
        if warning := decoding_warning(ctx.deployed(model).path):
            ctx.warn(warning)
        return super().convert(model, ctx, folder, batch)
