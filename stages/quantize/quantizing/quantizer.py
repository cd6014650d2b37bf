"""What static and dynamic quantization share: preparing a graph, telling what was quantized, making the file small."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import onnx
import torch

from pipeline.base.use import nearest
from pipeline.context import Context
from pipeline.errors import ConfigError, StageError
from pipeline.forms.external_data import load_whole
from pipeline.forms.graph import EXTERNAL_DATA_BYTES, QUANTIZED, graphs_in, opset, save, strip
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.stage import Stage, quantizing
from stages.quantize.graphs.exact import read_exactly
from stages.quantize.graphs.names import Names, blame_plainly, compact_names, distinct_names, merge_copies, name_each
from stages.quantize.graphs.order import name_captures, sort
from stages.quantize.graphs.outcome import Quantized, fp32_weights, tally, tell
from stages.quantize.graphs.reasons import HALF, NOTES
from stages.quantize.graphs.rewrite import original, share_initializers
from stages.quantize.graphs.scales import check_scales
from stages.quantize.halves.mixed import store_in_halves
from stages.quantize.quantizing.work import Do, Work, worker
from stages.quantize.steps.files import Files


class Prepared(NamedTuple):
    """A graph that is ready to be quantized, and what its values and nodes were called."""

    graph: onnx.GraphProto
    names: Names

    def named(self, names: Collection[str]) -> list[str]:
        """What the nodes are called here that a user calls so."""
        return [name for name, old in self.names.nodes.items() if old in names]


Quantizer = Callable[[Prepared], Work]
"""What is to be done to the prepared graph."""


def quantize(
    model: OnnxModel,
    ctx: Context,
    operators: Sequence[str],
    exclude: Sequence[str],
    quantizer: Quantizer,
    halves: Collection[str] = (),
    **noted: int,
) -> OnnxModel:
    """The file that `quantizer` makes of the model, small and checked; reports how many nodes became what.

    Args:
        model: an fp32 ONNX file; it is not touched.
        ctx: gets the file in its directory and the report "quantization".
        operators: types of the nodes to quantize.
        exclude: names of nodes to leave alone.
        quantizer: says how to make a quantized graph of the prepared one.
        halves: names of nodes of `exclude` whose weights are stored in fp16.
        noted: figures added to the report.

    Raises:
        StageError: the graph is quantized already, no node has a name of `exclude`, the quantizer failed, no node was
            quantized, or a scale cannot be right.
        ForeignError: a file from outside crashed the process that quantizes it.
    """
    quantized = quantized_graph(model, ctx, operators, exclude, quantizer, halves)
    path = ctx.directory / "quantized.onnx"
    save(quantized.proto, path)
    ctx.report("quantization", {**quantized.counts, **noted})
    return replace(model, path=path)


def quantized_graph(
    model: OnnxModel,
    ctx: Context,
    operators: Sequence[str],
    exclude: Sequence[str],
    quantizer: Quantizer,
    halves: Collection[str] = (),
) -> Quantized:
    """The small graph that `quantizer` makes, and what became of its nodes; says in the log what stays in fp32.

    Arguments and errors are those of `quantize`.
    """
    ctx.directory.mkdir(parents=True, exist_ok=True)
    # ONNX Runtime's tools leave files beside what they read; in a folder of their own these go with it.
    with TemporaryDirectory(dir=ctx.directory, prefix="quantize-") as folder, worker(model) as do:
        external = sum(file.stat().st_size for file in model.files()) > EXTERNAL_DATA_BYTES
        prepared = prepare(model, Path(folder), do, external)
        graph, names = prepared
        check_names(exclude, list(names.nodes.values()))
        source, target = (Path(folder) / f"{name}.onnx" for name in ("prepared", "quantized"))
        with names.blame("ONNX Runtime's quantizer"):
            left, layers = do(quantizer(prepared), Files(source, target, external))
        proto = onnx.load(target)
    alone = {name for name, old in names.nodes.items() if old in exclude}
    alone |= {name for why, some in left.items() if why not in NOTES for name in some}
    selected = {node.name for node in graph.node if node.op_type in operators} - alone
    nodes, unquantized = tally([node for node in graph.node if node.name in names.nodes], proto.graph, selected)
    if not nodes:
        raise _nothing_done(graph, unquantized)
    repair(proto, names, external)
    stored = store_in_halves(proto.graph, prepared.named(halves))
    weights = {names.plain(name): size for name, size in fp32_weights(proto.graph).items()}
    strip(proto)
    share_initializers(proto.graph)
    compact_names(proto.graph, names.values)
    by_reason = {why: [names.nodes.get(name, name) for name in some] for why, some in left.items() if some}
    plain_layers = [entry | {key: original(names.plain(entry[key])) for key in ("node", "weight")} for entry in layers]
    by_reason |= {HALF: [names.nodes[name] for name in stored]} if stored else {}
    quantized = Quantized(proto, nodes, unquantized, by_reason, weights, plain_layers)
    tell(quantized, ctx)
    return quantized


def prepare(model: OnnxModel, folder: Path, do: Do, external: bool) -> Prepared:
    """The graph that the quantizers are given, which is written to `prepared.onnx`."""
    source, path = folder / "named.onnx", folder / "prepared.onnx"
    name_nodes(model, source, external)
    # Its errors are of the user's file, not of a copy of it that is gone.
    with blame_plainly("ONNX Runtime's pre-processing", lambda text: text.replace(str(source), model.path.name)):
        do(Work("prepare"), Files(source, path, external))
    proto = onnx.load(path, load_external_data=False)
    if opset(proto) != opset(onnx.load(model.path, load_external_data=False)):
        check_same(model, path)
    return _distinct(proto, path)


def unprepared(model: OnnxModel, folder: Path, do: Do, external: bool) -> Prepared:
    """The graph as it is, but for the names, which is written to `prepared.onnx`."""
    path = folder / "prepared.onnx"
    name_nodes(model, path, external)
    return _distinct(onnx.load(path, load_external_data=False), path)


def _distinct(proto: onnx.ModelProto, path: Path) -> Prepared:
    """The graph, which is changed and written, with a name of its own for everything in it."""
    names = distinct_names(proto.graph)
    name_captures(proto.graph)
    onnx.save(proto, path)
    return Prepared(proto.graph, names)


def _nothing_done(graph: onnx.GraphProto, unquantized: dict[str, int]) -> StageError:
    is_double = any(tensor.data_type == onnx.TensorProto.DOUBLE for tensor in graph.initializer)
    kind = "float64, which is not quantized" if is_double else "fp32"
    fix = "Make it float32" if is_double else "Name more operators or exclude fewer nodes"
    problem = f"no node was quantized; left in {kind}: {json.dumps(unquantized)}"
    return StageError(problem, expected="at least one quantized node", fix=fix)


def repair(proto: onnx.ModelProto, names: Names, external: bool) -> None:
    """Put right, in place, what quantizers leave behind, and check the graph.

    Raises:
        StageError: a scale cannot be right, or it is no valid graph.
    """
    merge_copies(proto.graph)
    sort(proto.graph)
    read_exactly(proto.graph)
    with names.blame("the quantized graph"):
        check_scales(proto.graph)
        if not external:  # what protobuf cannot hold is checked by its file alone, when that is saved
            onnx.checker.check_model(proto)


def check_same(model: OnnxModel, path: Path) -> None:
    """Raise StageError where a graph whose opset was raised does not compute what it did."""
    if not model.example:
        return
    newer = replace(model, path=path)
    before, after = model.predict(model.example), newer.predict(model.example)
    for opened in (model, newer):
        opened.close()
    for name, value in before.items():
        close = 1e-3 * float(value.abs().max()) if value.is_floating_point() and value.numel() else 0.0
        if not torch.allclose(value, after[name], rtol=1e-3, atol=close, equal_nan=True):
            problem = f"its output `{name}` is another one in a newer opset, by onnx's own converter"
            raise StageError(problem, fix="Export the model again, with opset 13 or newer")


def name_nodes(model: OnnxModel, path: Path, external: bool = False) -> None:
    """Write the graph with a name of its own for every node.

    Args:
        model: an fp32 ONNX file.
        path: the file to write.
        external: whether weights go to a file beside it.

    Raises:
        StageError: the graph is quantized already.
    """
    onnx.save(named(model), path, save_as_external_data=external, location=f"{path.name}.data")


def named(model: OnnxModel) -> onnx.ModelProto:
    """The graph of an fp32 ONNX file with a name of its own for every node; errors as `name_nodes`."""
    proto = load_whole(model.path)
    if operators := sorted({node.op_type for part in graphs_in(proto.graph) for node in part.node} & QUANTIZED):
        fix = "Quantize once, from fp32"
        raise StageError(f"the graph is quantized already: it has {', '.join(operators)}", fix=fix)
    # Some exporters name initializers in `value_info` with another shape than theirs; the quantizers then stop.
    proto.graph.ClearField("value_info")
    name_each(proto.graph)
    return proto


REDUCE = "`reduce_range: true` avoids it"


def check_settings(before: Sequence[Stage], model: Model, operators: Sequence[str], quantizable: Sequence[str]) -> None:
    """Raise ConfigError where an earlier stage quantizes already, or weights or an operator cannot be quantized."""
    weights = dict(model.module.named_parameters()) if isinstance(model, TorchModel) else {}
    floats = {name: weight.dtype for name, weight in weights.items() if weight.is_floating_point()}
    if others := [name for name, kind in floats.items() if kind is not torch.float32]:
        problem = f"`{others[0]}` is {str(floats[others[0]]).removeprefix('torch.')}"
        fix = "End the builder with `.float()`, and give float32 inputs"
        raise ConfigError(problem, expected="float32, which can be quantized", fix=fix)
    if quantizing(before):
        raise ConfigError("an earlier stage quantizes already", fix="Quantize once, from fp32")
    for operator in operators:
        if operator not in quantizable:
            expected = "operators that ONNX Runtime can quantize in this way"
            raise ConfigError(f"`operators` has `{operator}`{nearest(operator, list(quantizable))}", expected=expected)


def check_names(exclude: Sequence[str], names: Sequence[str]) -> None:
    """Raise StageError for a name that no node of the prepared graph has."""
    for name in exclude:
        if name not in names:
            problem = f"`exclude` has `{name}`, and no node has that name{nearest(name, [*names])}"
            raise StageError(problem, expected="names of nodes after constants and BatchNorm are folded")
