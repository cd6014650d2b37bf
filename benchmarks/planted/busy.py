"""ONNX Runtime, in which the model and not the baseline takes longer by a known share."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from stages.benchmark.runtime import Runtime


class Busy(Runtime):
    """The deployed file, and a wait after each inference."""

    package: ClassVar[str] = "onnxruntime"

    share: float = Field(0.1, ge=0, description="how much longer the model takes")

    def convert(self, model: Any, ctx: Any, folder: Path, batch: int) -> dict[str, Any]:
        """As for ONNX Runtime; the baseline does not wait."""
        return {**super().convert(model, ctx, folder, batch), "share": 0 if model is ctx.baseline else self.share}
