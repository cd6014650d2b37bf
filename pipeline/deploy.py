"""From a torch model to the ONNX file that would be deployed; measuring and `export.onnx` both use it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from pipeline.errors import StageError, blame
from pipeline.model import Inputs, OnnxModel, TorchModel, call

OPSET = 20
EXTERNAL_DATA_BYTES = 1_900_000_000  # protobuf ends at 2 GiB; above this the weights go to a file beside the graph


def deploy(model: TorchModel, path: Path, opset: int = OPSET) -> OnnxModel:
    """Write the model as an fp32 ONNX file with a dynamic batch and without the exporter's metadata.

    Args:
        model: what to export; its inputs' first axis is the batch.
        path: the file to write; its folder is made.
        opset: ONNX operator set, 18 to 25.

    Raises:
        StageError: the exporter cannot trace the model, or the checker refuses the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with blame(StageError, "ONNX export", fix="The forward must be traceable by torch.export"), _quiet(), slow_path():
        proto = _export(model, opset)
    strip(proto)
    _check_batch(proto.graph)
    rename(proto.graph, "input", list(model.example))
    rename(proto.graph, "output", list(call(model.module, _pair(model.example))))
    save(proto, path)
    return OnnxModel(path, model.example)


def save(proto: onnx.ModelProto, path: Path) -> None:
    """Write and check a graph; weights of a large one go to a file beside it."""
    external = proto.ByteSize() > EXTERNAL_DATA_BYTES
    path.with_name(path.name + ".data").unlink(missing_ok=True)
    onnx.save(proto, path, save_as_external_data=external, location=path.name + ".data")
    with blame(StageError, str(path)):
        onnx.checker.check_model(path)


def strip(proto: onnx.ModelProto) -> None:
    """Remove what no runtime reads: stack traces, doc strings, and the shapes of values inside the graph."""
    proto.ClearField("metadata_props")
    graph = proto.graph
    # Some entries name initializers with another shape than theirs and make ONNX Runtime's quantizer fail.
    graph.ClearField("value_info")
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    called = {(node.domain, node.op_type) for node in (*graph.node, *(n for f in proto.functions for n in f.node))}
    functions = [function for function in proto.functions if (function.domain, function.name) in called]
    proto.ClearField("functions")
    proto.functions.extend(functions)
    used = {domain for domain, _ in called} | {""}
    kept = [entry for entry in proto.opset_import if entry.domain in used]
    proto.ClearField("opset_import")
    proto.opset_import.extend(kept)


def rename(graph: onnx.GraphProto, side: str, names: list[str]) -> None:
    """Give the graph's inputs or outputs the names that the task knows, in order."""
    old = [value.name for value in getattr(graph, side)]
    if len(old) != len(names):
        raise StageError(
            f"the graph has {len(old)} {side}s and the model {len(names)}",
            where="ONNX export",
            expected=f"the {side}s {', '.join(names)}",
            fix="Let the forward return a tensor, or a flat tuple or dictionary of tensors",
        )
    mapping = {a: b for a, b in zip(old, names, strict=True) if a != b}
    # A value inside the graph that has one of these names already makes way.
    inner = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    inner -= set(old)
    mapping |= {name: f"{name}_inner" for name in sorted(inner & set(names))}
    for value in (*getattr(graph, side), *graph.initializer):
        value.name = mapping.get(value.name, value.name)
    for node in graph.node:
        for ends in (node.input, node.output):
            for i, name in enumerate(ends):
                ends[i] = mapping.get(name, name)


def _check_batch(graph: onnx.GraphProto) -> None:
    for value in graph.input:
        first = value.type.tensor_type.shape.dim[0]
        if first.HasField("dim_value"):
            raise StageError(
                f"the forward fixes the batch of `{value.name}` to {first.dim_value}",
                where="ONNX export",
                expected="any number of examples",
                fix="Reshape by x.shape[0] or -1, not by a number",
            )


@contextmanager
def slow_path() -> Iterator[None]:
    """Without nn.TransformerEncoder's fused inference path, which tracers and counters do not see through."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _export(model: TorchModel, opset: int) -> onnx.ModelProto:
    example = _pair(model.example)
    batch = torch.export.Dim("batch")
    axes = {name: {0: batch} for name in example}
    single = len(example) == 1
    program = torch.onnx.export(
        model.module,
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


def _pair(example: Inputs) -> Inputs:
    """Two examples: a batch of one would be traced as a constant."""
    return {name: torch.cat([value, value])[:2] for name, value in example.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
