"""ONNX Runtime's own format."""

from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from pipeline.context import Context
from pipeline.model import Model
from stages.benchmark.processes.module import run_module
from stages.benchmark.runtime import Runtime


class OrtFormat(Runtime):
    """The deployed file in ONNX Runtime's own format (.ort), which small builds of it read.

    Choose it for phones and devices: it starts faster, and a build with the operators of `ort_operators`, a report of
    the stage, is a fraction of the whole.
    """

    package: ClassVar[str] = "onnxruntime"
    converts: ClassVar[bool] = True
    reads_as: ClassVar[str] = "onnxruntime"

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """The converted file, made in a process of its own; the operators that it needs are reported."""
        source, target, operators = ctx.deployed(model).path.resolve(), folder / "model.ort", folder / "operators.txt"
        who = f"the process that converted {source} to .ort"
        run_module("stages.benchmark.runners.ort", [source, target, operators], who)
        if model is not ctx.baseline:
            lines = operators.read_text().splitlines()
            ctx.report("ort_operators", [line for line in lines if line and not line.startswith("#")])
        return {"model": str(target.resolve())}
