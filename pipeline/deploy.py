"""From a torch model to the ONNX file that would be deployed; measuring and `export.onnx` both use it."""

import copy
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import replace
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pipeline.base.batches import Axes, Inputs
from pipeline.base.quiet import muted
from pipeline.errors import StageError, blame
from pipeline.forms.graph import OPSET, rename, save, strip
from pipeline.forms.text.remapped import split
from pipeline.forms.tracing import AttentionOfFourAxes, for_export, forget_captures, slow_path, untraceable
from pipeline.model import OnnxModel, TorchModel, call, named

EXPORTERS = ("torch.onnx", "onnxscript", "torch.export", "torch.fx", "torch._dynamo")  # loggers
BATCH = "batch"  # name of the first axis


def deploy(model: TorchModel, path: Path, opset: int = OPSET) -> OnnxModel:
    """Write the model as an fp32 ONNX file with a dynamic batch and without the exporter's metadata.

    The model's `axes` take any length too. Of outputs by name the tensors are written; what is nested in others, such
    as the hidden states of transformers, is not. An output with the name of an input gets `_out` behind it.

    Args:
        model: what to export; its inputs' first axis is the batch.
        path: the file to write; its folder is made.
        opset: ONNX operator set, 18 to 25.

    Raises:
        StageError: the exporter cannot trace the model, an axis would have one length alone, or the checker refuses the
            file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_layers(model.module)
    deployed = located(model, path)
    model = replace(model, module=for_export(split(model.module)[0]), example=deployed.feed(model.example))
    traceable = blame(StageError, "ONNX export", fix="The forward must be traceable by torch.export")
    forget_captures()
    try:
        # A capture that fails prints the graph that it had.
        with traceable, muted(EXPORTERS), slow_path(), AttentionOfFourAxes(), redirect_stderr(StringIO()):
            proto = _export(model, opset)
    except StageError as error:
        if isinstance(error.__cause__, torch.onnx.OnnxExporterError):
            error.found, error.fix = untraceable(error.__cause__)
        raise
    strip(proto)
    rename(proto.graph, "input", list(model.example))
    rename(proto.graph, "output", _output_names(model))
    _check_axes(proto.graph, model.axes)
    with traceable:
        _free_outputs(proto.graph, model)
    save(proto, path)
    return deployed


def _check_layers(module: nn.Module) -> None:
    """Raise StageError for a layer that the exporter would write wrong."""
    for name, part in module.named_modules():
        if isinstance(part, nn.LSTM) and part.proj_size:
            problem = f"`{name}` is an LSTM with proj_size, which ONNX's LSTM does not have"
            fix = "Leave proj_size out, and put an nn.Linear behind it where fewer outputs are wanted"
            raise StageError(problem, where="ONNX export", fix=fix)


def _output_names(model: TorchModel) -> list[str]:
    """The names of the outputs; one that an input has too, which ONNX does not allow, ends with `_out`."""
    names = list(call(model.module, _traced(model)))
    renamed = {name: f"{name}_out" for name in names if name in model.example}
    if clash := set(renamed.values()) & {*names, *model.example}:
        problem = f"the output `{min(clash).removesuffix('_out')}` has the name of an input"
        raise StageError(problem, where="ONNX export", expected="names of their own", fix="Give the output another key")
    return [renamed.get(name, name) for name in names]


def located(model: TorchModel, path: Path) -> OnnxModel:
    """The file at a path that `deploy` has written or will write."""
    return OnnxModel(path, model.example, vocabulary=split(model.module)[1])


def _check_axes(graph: onnx.GraphProto, axes: Axes) -> None:
    """Raise StageError where the batch, or one of these axes, would have one length alone."""
    axis_names: dict[str, str] = {}
    for value in graph.input:
        for axis, name in {0: BATCH, **axes.get(value.name, {})}.items():
            what = f"the batch of `{value.name}`" if axis == 0 else f"axis {axis} of `{value.name}` ({name})"
            dimension = value.type.tensor_type.shape.dim[axis]
            if dimension.HasField("dim_value"):
                problem = f"the forward fixes {what} to {dimension.dim_value}"
                expected = "any number of examples" if axis == 0 else "any length"
                fix = f"Reshape by x.shape[{axis}] or -1, not by a number"
                raise StageError(problem, where="ONNX export", expected=expected, fix=fix)
            if axis_names.setdefault(dimension.dim_param, name) != name:
                problem = f"the forward needs {what} to be as long as {axis_names[dimension.dim_param]}"
                expected = "lengths of different names to be free of each other"
                fix = "Give both the same name in the task's `axes`"
                raise StageError(problem, where="ONNX export", expected=expected, fix=fix)


def _free_outputs(graph: onnx.GraphProto, model: TorchModel) -> None:
    """Name the axes of outputs that get shorter with an input's; behind a loop the exporter tells one length."""
    example = _traced(model)
    for name in _names(model.axes):
        of_name = {key: [axis for axis, own in by.items() if own == name] for key, by in model.axes.items()}
        lengths = {example[key].shape[axis] for key, axes in of_name.items() for axis in axes}
        doubtful = [value for value in graph.output if any(dim.dim_value in lengths for dim in _dims(value)[1:])]
        if not doubtful:
            continue
        shorter = dict(example)
        for key, axes in of_name.items():
            for axis in axes:
                shorter[key] = shorter[key].narrow(axis, 0, shorter[key].shape[axis] - 1)
        with torch.no_grad():
            before, after = call(model.module, example), call(model.module, shorter)
        for value in doubtful:
            for dim, long, short in zip(_dims(value), before[value.name].shape, after[value.name].shape, strict=True):
                if dim.HasField("dim_value") and short < long:
                    dim.dim_param = name


def _dims(value: onnx.ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim


def _export(model: TorchModel, opset: int) -> onnx.ModelProto:
    example = _traced(model)
    lengths = {name: torch.export.Dim(name) for name in (BATCH, *_names(model.axes))}
    named_axes = {name: {0: BATCH, **model.axes.get(name, {})} for name in example}
    axes = {name: {axis: lengths[length] for axis, length in by.items()} for name, by in named_axes.items()}
    single = len(example) == 1
    program = torch.onnx.export(
        _flat(model.module, example),
        tuple(example.values()) if single else (),
        kwargs=None if single else example,
        dynamic_shapes=tuple(axes.values()) if single else axes,
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise StageError("the exporter gave nothing", where="ONNX export")
    return program.model_proto


def _takes_any(module: nn.Module, example: Inputs) -> bool:
    """Whether `*inputs` or `**inputs` of the forward take the example."""
    parameters = signature(module.forward)
    bound = parameters.bind(*example.values()) if len(example) == 1 else parameters.bind(**example)
    kinds = {parameters.parameters[name].kind for name in bound.arguments}
    return bool(kinds & {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD})


def _traced(model: TorchModel) -> Inputs:
    """What to trace with: two examples, of two steps at least on an axis of any length; one would be a constant."""
    example = {name: torch.cat([value, value])[:2] for name, value in model.example.items()}
    for name, axes in model.axes.items():
        for axis in axes:
            if example[name].shape[axis] == 1:
                example[name] = torch.cat([example[name], example[name]], dim=axis)
    return example


def _names(axes: Axes) -> list[str]:
    return list(dict.fromkeys(name for by_axis in axes.values() for name in by_axis.values()))


def _flat(module: nn.Module, example: Inputs) -> nn.Module:
    """The module, or one that shares all with it, where the exporter would not see its inputs or outputs.

    It does not where outputs by name have more than tensors, and where the forward takes `*inputs` or `**inputs`.
    """
    with torch.no_grad():
        outputs = module(*example.values()) if len(example) == 1 else module(**example)
    leaves = [value for value in tree_leaves(outputs) if value is not None]
    nested = isinstance(outputs, Mapping) and len(leaves) > len(named(outputs))
    variable = _takes_any(module, example)
    if not nested and not variable:
        return module
    lean = copy.copy(module)
    forward = partial(type(module).forward, lean)

    @wraps(module.forward)
    def alone(*inputs: Any, **by_name: Any) -> Any:
        outputs = forward(*inputs, **by_name)
        return named(outputs) if nested else outputs

    if variable:
        alone.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in example])  # type: ignore[attr-defined]
    lean.forward = alone
    return lean
