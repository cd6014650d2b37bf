"""Packed weights: a quantized file whose integers are stored in as few bits as hold them, and nothing else changes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import onnx
from pydantic import Field, JsonValue

from pipeline.base.batches import Inputs
from pipeline.base.formatting import bytes_text
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, StageError, blame
from pipeline.forms.external_data import load_whole
from pipeline.forms.graph import BLOCKWISE, QUANTIZED, graphs_in, opset
from pipeline.forms.packed import is_packed
from pipeline.measure.size import elements, layer_of, size_bytes
from pipeline.model import OnnxModel
from pipeline.stage import Stage, quantizing
from pipeline.task import Split
from stages.quantize.half import HalfPrecision
from stages.quantize.packing.candidates import candidates, first_right
from stages.quantize.packing.graph import Packed, floats_of, weight_names, weights_of
from stages.quantize.packing.proof import behaviour, difference, loading
from stages.quantize.weights import WeightQuantization

BLOCKS = "weights in blocks, as quantize.weights makes them, have no more bits than they need"
ANEW = "what an earlier stage quantized is gone: a student is built anew behind it"
QUANTIZE = "Put quantize.static or quantize.dynamic before it"


class WeightPacking(Stage):
    """An ONNX file with the same outputs, to the bit, whose weights take as few bits as hold their integers exactly.

    Put it behind a stage that quantizes, where the file's size counts: the runtime decodes the weights when it loads
    the file, and runs what it ran. Weights of 8 bits that use all of them stay as they are.

    Example:
        - {use: quantize.pack}

    Reference: codebooks and sparse indices: Song Han, Huizi Mao and William J. Dally, "Deep Compression: Compressing
    Deep Neural Networks with Pruning, Trained Quantization and Huffman Coding", 2016, arXiv:1510.00149, section 2.
    """

    quantizes: ClassVar[bool] = True
    packs: ClassVar[bool] = True

    opset: int | None = Field(
        None, ge=13, description="newest opset that the runtime loads; null allows 21, whose 4-bit integers save bytes"
    )
    functions: bool = Field(
        False,
        description="write what comes again and again once, as functions; ONNX Runtime reads it, OpenVINO does not",
    )
    batch_size: int = Field(64, ge=1, description="calibration examples a batch, of which outputs are compared")

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse a chain in which nothing quantizes before it, or something packs already."""
        if any(isinstance(stage, WeightPacking) for stage in before):
            raise ConfigError("an earlier stage packs already", fix="Pack once, at the end")
        if any(isinstance(stage, WeightQuantization) for stage in before):
            raise ConfigError(BLOCKS, fix="Leave quantize.pack out")
        if any(isinstance(stage, HalfPrecision) for stage in before):
            problem = "quantize.half leaves no integers that could take fewer bits"
            raise ConfigError(problem, expected="weights in integers", fix="Leave quantize.pack out")
        own = [stage for stage in before if not type(stage).__module__.startswith("stages.")]
        if quantizing(before) or not all(stage.only_measures for stage in own):  # a user's may round them, too
            return ()
        if any(stage.quantizes for stage in before):
            raise ConfigError(ANEW, expected="weights in integers", fix=QUANTIZE)
        if not isinstance(preview.model, OnnxModel):
            raise ConfigError("no earlier stage quantizes", expected="weights in integers", fix=QUANTIZE)
        with blame(ConfigError, str(preview.model.path)):
            check_graph(onnx.load(preview.model.path, load_external_data=False), self.opset, ConfigError)
        return ()

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The packed file.

        Raises:
            StageError: nothing is quantized, it is packed already, the calibration data have NaN, no packed file has
                equal outputs by the same operators, or none is smaller.
            ForeignError: a file from outside crashed the process that loads it.
        """
        proto = load_whole(model.path)
        check_graph(proto, self.opset, StageError)
        ctx.directory.mkdir(parents=True, exist_ok=True)
        before = behaviour(model, calibration_inputs(ctx.calibration, self.batch_size))

        def wrong(path: Path) -> str:
            batches = calibration_inputs(ctx.calibration, self.batch_size)
            return difference(before, behaviour(replace(model, path=path), batches))

        tries = candidates(proto, self.opset, self.functions)
        with ctx.progress("packing", 1) as advance, TemporaryDirectory(dir=ctx.directory) as folder:
            trial = Path(folder) / "packed.onnx"
            packed = first_right(tries, trial, wrong, ctx.log.info)
            sizes = size_bytes(model), size_bytes(replace(model, path=trial))
            if sizes[1] >= sizes[0]:
                problem = f"packed it has {bytes_text(sizes[1])}, and {bytes_text(sizes[0])} before"
                fix = "Leave quantize.pack out, or train the weights to fewer values first"
                raise StageError(problem, expected="fewer bytes", fix=fix)
            for part in Path(folder).iterdir():
                part.replace(ctx.directory / part.name)
            advance(1)
        result = replace(model, path=ctx.directory / trial.name)
        ctx.report("packing", {**counts(proto.graph, packed, *sizes), **loading(model, result)})
        return result


def check_graph(proto: onnx.ModelProto, newest: int | None, error: type[ConfigError | StageError]) -> None:
    """Raise `error` where a graph is packed already, has nothing quantized, or has a newer opset than is loaded."""
    if is_packed(proto.graph):
        raise error("its weights are packed already", expected="a quantized file", fix="Leave quantize.pack out")
    operators = {node.op_type for part in graphs_in(proto.graph) for node in part.node}
    if operators & {*BLOCKWISE}:
        raise error(BLOCKS, expected="weights in integers of 8 bits", fix="Leave quantize.pack out")
    if not weight_names(proto.graph) and not operators & QUANTIZED:
        raise error("nothing in it is quantized", expected="weights in integers", fix=QUANTIZE)
    if newest is not None and opset(proto) > newest:
        fix = f"Export it with `opset: {newest}`, or raise `opset` here"
        raise error(f"it has opset {opset(proto)}", expected=f"at most {newest}, which the runtime loads", fix=fix)


def calibration_inputs(split: Split, batch_size: int) -> Iterator[Inputs]:
    """The inputs of the calibration split, batch by batch. Raises StageError where there are none, or NaN."""
    if not len(split):
        raise StageError("the calibration split is empty", expected="typical inputs, whose outputs are compared")
    for batch in split.loader(batch_size):
        for name, value in batch.inputs.items():
            if value.is_floating_point() and value.isnan().any():
                row = int(value.isnan().flatten(1).any(1).nonzero()[0]) if value.ndim > 1 else 0
                problem = f"`{name}` of calibration example {int(batch.index[row])} has NaN"
                raise StageError(
                    problem, expected="numbers", fix="Repair the data; what is equal to NaN proves nothing"
                )
        yield batch.inputs


def halves_in(graph: onnx.GraphProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    """The constants of 16 bits, which stay as they are, and their kind."""
    kinds = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}
    return ((tensor, kinds[tensor.data_type]) for tensor in graph.initializer if tensor.data_type in kinds)


def counts(graph: onnx.GraphProto, packed: Packed, before: int, after: int) -> dict[str, JsonValue]:
    """What the record says of the bytes of a packed file, and of each tensor of the file before.

    Args:
        graph: before.
        packed: after.
        before, after: bytes of the files.
    """
    layers = layer_of(graph)
    sizes = {weight.name: ("int8", weight.integers.nbytes, weight.integers.size) for weight in weights_of(graph)}
    sizes |= {name: ("fp32", array.nbytes, array.size) for name, array in floats_of(graph).items()}
    sizes |= {tensor.name: (kind, 2 * elements(tensor), elements(tensor)) for tensor, kind in halves_in(graph)}
    rows: list[dict[str, JsonValue]] = []
    for name, (kind, size, count) in sizes.items():
        encoding, stored = packed.stored.get(name, (kind, size))
        label = name if "." in name else f"{layers[name]}: {name}"
        rows.append({"name": label, "encoding": encoding, "elements": count, "before": size, "bytes": stored})
    weights = sum(int(packed.stored[name].bytes if name in packed.stored else sizes[name][1]) for name in sizes)
    return {"bytes": {"before": before, "after": after}, "graph_bytes": after - weights, "tensors": [*rows]}
