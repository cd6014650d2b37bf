"""What converters are given: an ONNX file, or a program of torch.export."""

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.base.quiet import muted
from pipeline.errors import StageError, blame
from pipeline.forms.graph import QUANTIZED, inputs_of
from pipeline.forms.text.remapped import split
from pipeline.forms.tracing import for_export, forget_captures, slow_path
from pipeline.model import TorchModel, call

LOGGERS = ("torch.export", "torch.fx", "torch._dynamo")


def graph_source(path: Path) -> dict[str, Any]:
    """The file, and the names of its inputs and outputs in order.

    Raises:
        StageError: it computes in integers.
    """
    graph = onnx.load(path, load_external_data=False).graph
    if operators := sorted({node.op_type for node in graph.node if node.op_type in QUANTIZED}):
        problem = f"it does not take the operators of a quantized file: {', '.join(operators)}"
        raise StageError(problem, expected="an fp32 file", fix="Measure before the file is quantized")
    inputs, outputs = ([value.name for value in values] for values in (inputs_of(graph), graph.output))
    return {"source": str(path.resolve()), "input_names": inputs, "output_names": outputs}


def program_source(model: TorchModel, folder: Path, batch: int) -> dict[str, Any]:
    """A program for so many examples, written to a folder, and the names of its inputs and outputs in order.

    Raises:
        StageError: torch.export cannot trace the model.
    """
    example = fed(model, {name: value[torch.arange(batch) % len(value)] for name, value in model.example.items()})
    positional = _Positional(for_export(split(model.module)[0]), list(example))
    path = folder / "program.pt2"
    forget_captures()
    traceable = blame(StageError, "torch.export", fix="The forward must be traceable by torch.export")
    with traceable, muted(LOGGERS), slow_path(), redirect_stderr(StringIO()), torch.no_grad():
        outputs = list(call(positional.module, example))
        torch.export.save(torch.export.export(positional, tuple(example.values())), path)
    return {"source": str(path), "input_names": [*example], "output_names": outputs}


def fed(model: Any, inputs: Inputs) -> Inputs:
    """What a program takes for a batch of the task's inputs: whoever deploys it has the pruned tokenizer."""
    vocabulary = split(model.module)[1]
    return vocabulary.translate(inputs) if vocabulary else dict(inputs)


class _Positional(nn.Module):
    """Takes its inputs, and gives its outputs, in order: converters name them otherwise, or sort them."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module, self.names = module, names
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        return tuple(call(self.module, dict(zip(self.names, inputs, strict=True))).values())
