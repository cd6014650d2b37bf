"""What static and dynamic quantization share: preparing a graph, telling what was quantized, making the file small."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from pipeline.base.use import nearest
from pipeline.errors import ConfigError, StageError, blame
from pipeline.forms.external_data import load_whole
from pipeline.forms.graph import EXTERNAL_DATA_BYTES, QUANTIZED, save, strip
from pipeline.model import OnnxModel
from pipeline.stage import Context, Stage
from stages.quantize.rewrite import compact_names, share_initializers, split_gemm
from stages.quantize.work import Work, worker

EIGHT_BITS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)

Quantizer = Callable[[onnx.GraphProto], Work]
"""What is to be done to the prepared graph."""


def quantize(
    model: OnnxModel, ctx: Context, operators: Sequence[str], exclude: Sequence[str], quantizer: Quantizer, **noted: int
) -> OnnxModel:
    """The file that `quantizer` makes of the model, small and checked; reports how many nodes became what.

    Args:
        model: an fp32 ONNX file; it is not touched.
        ctx: gets the file in its directory and the report "quantization".
        operators: types of the nodes to quantize.
        exclude: names of nodes to leave alone.
        quantizer: says how to make a quantized graph of the prepared one.
        noted: figures added to the report.

    Raises:
        StageError: the graph is quantized already, no node has a name of `exclude`, the quantizer failed, or
            no node was quantized.
        ForeignError: a file from outside crashed the process that quantizes it.
    """
    proto, quantized, unquantized = quantized_graph(model, ctx, operators, exclude, quantizer)
    path = ctx.directory / "quantized.onnx"
    save(proto, path)
    ctx.log.info("quantized %d nodes, left %d in fp32", sum(quantized.values()), sum(unquantized.values()))
    ctx.report("quantization", {"quantized": {**quantized}, "fp32": {**unquantized}, **noted})
    return replace(model, path=path)


def quantized_graph(
    model: OnnxModel, ctx: Context, operators: Sequence[str], exclude: Sequence[str], quantizer: Quantizer
) -> tuple[onnx.ModelProto, dict[str, int], dict[str, int]]:
    """The small graph that `quantizer` makes, and its nodes by operator: those quantized, those left in fp32.

    Arguments and errors are those of `quantize`.
    """
    ctx.directory.mkdir(parents=True, exist_ok=True)
    # ONNX Runtime's tools leave files beside what they read; in a folder of their own these go with it.
    with TemporaryDirectory(dir=ctx.directory, prefix="quantize-") as folder, worker(model) as do:
        named, source, target = (Path(folder) / f"{name}.onnx" for name in ("named", "prepared", "quantized"))
        external = sum(file.stat().st_size for file in model.files()) > EXTERNAL_DATA_BYTES
        name_nodes(model, named, external)
        with blame(StageError, "ONNX Runtime's pre-processing"):
            do(Work("prepare"), named, source, external)
        before = onnx.load(source, load_external_data=False).graph
        check_names(exclude, before)
        with blame(StageError, "ONNX Runtime's quantizer"):
            do(quantizer(before), source, target, external)
        proto = onnx.load(target)
    selected_names = {node.name for node in before.node if node.op_type in operators and node.name not in exclude}
    quantized, unquantized = tally(before, proto.graph, selected_names)
    if not quantized:
        expected = "at least one quantized node"
        fix = "Name more operators or exclude fewer nodes"
        raise StageError(f"no node was quantized; left in fp32: {json.dumps(unquantized)}", expected=expected, fix=fix)
    strip(proto)
    share_initializers(proto.graph)
    compact_names(proto.graph)
    return proto, quantized, unquantized


def name_nodes(model: OnnxModel, path: Path, external: bool = False) -> None:
    """Write the graph with a name for every node.

    Args:
        model: an fp32 ONNX file.
        path: the file to write.
        external: whether weights go to a file beside it.

    Raises:
        StageError: the graph is quantized already.
    """
    proto = load_whole(model.path)
    if operators := sorted({node.op_type for node in proto.graph.node} & QUANTIZED):
        fix = "Quantize once, from fp32"
        raise StageError(f"the graph is quantized already: it has {', '.join(operators)}", fix=fix)
    # Some exporters name initializers in `value_info` with another shape than theirs; the quantizers then stop.
    proto.graph.ClearField("value_info")
    for i, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    onnx.save(proto, path, save_as_external_data=external, location=f"{path.name}.data")


SATURATION = (
    "this CPU has no VNNI: its sums of uint8 times int8 products saturate, which costs accuracy here, not on newer "
    "CPUs; `reduce_range: true` avoids it"
)


def check_settings(before: Sequence[Stage], operators: Sequence[str], quantizable: Sequence[str]) -> None:
    """Raise ConfigError where an earlier stage quantizes already, or an operator cannot be quantized in this way."""
    family = __name__.rpartition(".")[0]
    if any(type(stage).__module__.startswith(family) for stage in before):
        raise ConfigError("an earlier stage quantizes already", fix="Quantize once, from fp32")
    for operator in operators:
        if operator not in quantizable:
            expected = "operators that ONNX Runtime can quantize in this way"
            raise ConfigError(f"`operators` has `{operator}`{nearest(operator, list(quantizable))}", expected=expected)


def check_names(exclude: Sequence[str], graph: onnx.GraphProto) -> None:
    """Raise StageError for a name that no node of the prepared graph has."""
    names = [node.name for node in graph.node]
    for name in exclude:
        if name not in names:
            problem = f"`exclude` has `{name}`, and no node has that name{nearest(name, names)}"
            raise StageError(problem, expected="names of nodes after constants and BatchNorm are folded")


def tally(before: onnx.GraphProto, after: onnx.GraphProto, selected: set[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Nodes of the graph before, by operator: those that are quantized after, and those left in fp32.

    A node that went into a quantized neighbour, such as a Relu into its convolution, counts as quantized. One that was
    not asked for and reads the dequantized output of a neighbour does not.
    """
    integers = {out for node in after.node if node.op_type == "DequantizeLinear" for out in node.output}
    integers |= {t.name for t in after.initializer if t.data_type in EIGHT_BITS}  # a table that a Gather reads
    fused = {node.name for node in after.node if integers & set(node.input)} & selected
    same = {node.name for node in after.node if node.op_type not in QUANTIZED} - fused
    # The dynamic quantizer first splits every Gemm, also one that it then leaves alone.
    unquantized = Counter(n.op_type for n in before.node if n.name in same or split_gemm(n) in same)
    every = Counter(n.op_type for n in before.node)
    return dict(sorted((every - unquantized).items())), dict(sorted(unquantized.items()))
