"""What converters are given: an ONNX file, or a program of torch.export."""

from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import onnx
import torch
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.base.quiet import muted
from pipeline.context import Context
from pipeline.errors import StageError, blame
from pipeline.forms.graph import QUANTIZED, inputs_of
from pipeline.forms.text.remapped import split
from pipeline.forms.tracing import forget_captures, rounded_otherwise, slow_path
from pipeline.model import Model, TorchModel, call

LOGGERS = ("torch.export", "torch.fx", "torch._dynamo")
FLOATS = "Take the model as it is before it is quantized, or a runtime that takes quantized files, such as openvino"


class Source(Protocol):
    """What a converter takes of a model."""

    def told(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, Any]:
        """`source`, a file, for so many examples, and the names of its inputs and outputs in order."""

    def batches(self, model: Model, ctx: Context, inputs: Inputs) -> Iterator[Inputs]:
        """A batch of the task's inputs as what is converted takes it."""


class Graphs:
    """The deployed ONNX file in fp32."""

    def told(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, Any]:
        """The file. Raises StageError where it computes in integers."""
        path = ctx.deployed(model).path
        graph = onnx.load(path, load_external_data=False).graph
        if operators := sorted({node.op_type for node in graph.node if node.op_type in QUANTIZED}):
            problem = f"it does not take the operators of a quantized file: {', '.join(operators)}"
            raise StageError(problem, expected="an fp32 file", fix=FLOATS)
        return graph_source(path)

    def batches(self, model: Model, ctx: Context, inputs: Inputs) -> Iterator[Inputs]:
        """One, in the names of the file, unless it steps."""
        deployed: Any = ctx.deployed(model)
        yield from deployed.calls(inputs)


class Programs(Graphs):
    """A torch model as torch.export traces it; one that rounds its values, and an ONNX file, as the file says.

    The converter makes a program of the file with its integers and scales, see `runners.edge.imported`.
    """

    def told(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, Any]:
        """A program, or the file and the `shapes` of its inputs. Raises StageError where a model cannot be traced."""
        if _is_traced(model):
            return program_source(model, folder, batch)
        feed = next(self.batches(model, ctx, repeated(model.example, batch)))
        source = graph_source(ctx.deployed(model).path)
        return {**source, "shapes": {name: list(feed[name].shape) for name in source["input_names"]}}

    def batches(self, model: Model, ctx: Context, inputs: Inputs) -> Iterator[Inputs]:
        """One: of pruned tokens where a torch model has them."""
        if _is_traced(model):
            yield fed(model, inputs)
        else:
            yield from super().batches(model, ctx, inputs)


def graph_source(path: Path) -> dict[str, Any]:
    """An ONNX file, and the names of its inputs and outputs in order."""
    graph = onnx.load(path, load_external_data=False).graph
    inputs, outputs = ([value.name for value in values] for values in (inputs_of(graph), graph.output))
    return {"source": str(path.resolve()), "input_names": inputs, "output_names": outputs}


def program_source(model: TorchModel, folder: Path, batch: int) -> dict[str, Any]:
    """A program for so many examples, written to a folder, and the names of its inputs and outputs in order.

    Raises:
        StageError: torch.export cannot trace the model.
    """
    example = fed(model, repeated(model.example, batch))
    positional = _Positional(split(model.module)[0], list(example))
    path = folder / "program.pt2"
    forget_captures()
    traceable = blame(StageError, "torch.export", fix="The forward must be traceable by torch.export")
    with traceable, muted(LOGGERS), slow_path(), redirect_stderr(StringIO()), torch.no_grad():
        outputs = list(call(positional.module, example))
        torch.export.save(torch.export.export(positional, tuple(example.values())), path)
    return {"source": str(path), "input_names": [*example], "output_names": outputs}


def repeated(example: Inputs, batch: int) -> Inputs:
    """So many examples, each as often as needed."""
    return {name: value[torch.arange(batch) % len(value)] for name, value in example.items()}


def fed(model: Any, inputs: Inputs) -> Inputs:
    """What a program takes for a batch of the task's inputs: whoever deploys it has the pruned tokenizer."""
    vocabulary = split(model.module)[1]
    return vocabulary.translate(inputs) if vocabulary else dict(inputs)


def _is_traced(model: Model) -> TypeGuard[TorchModel]:
    return isinstance(model, TorchModel) and rounded_otherwise(model.module) is None


class _Positional(nn.Module):
    """Takes its inputs, and gives its outputs, in order: converters name them otherwise, or sort them."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module, self.names = module, names
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        return tuple(call(self.module, dict(zip(self.names, inputs, strict=True))).values())
