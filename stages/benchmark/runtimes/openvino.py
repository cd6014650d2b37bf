"""OpenVINO."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, JsonValue

from pipeline.context import Context
from pipeline.model import Model
from stages.benchmark.runtime import Runtime


class OpenVino(Runtime):
    """The deployed ONNX file in OpenVINO on the CPU.

    Choose it for x86 servers and laptops: it is often faster there than ONNX Runtime, and runs int8 files in integers
    with biases of either kind.
    """

    package: ClassVar[str] = "openvino"
    command: ClassVar[str] = "pip install 'shrinkline[openvino]'"

    precision: Literal["f32", "native"] = Field(
        "f32", description="f32 computes floats as they are; native in what is fastest here, such as bf16"
    )

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """The ONNX file, which it reads as it is."""
        return {**super().convert(model, ctx, folder, batch), "precision": self.precision}
