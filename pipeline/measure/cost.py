"""Parameters and multiply-accumulates (MACs) of one example.

MACs have one definition: products summed in convolutions, matrix products and recurrent cells; nothing for
activations, normalization, pooling or embeddings. They are counted on the ONNX graph that would be deployed;
`torch_macs` counts the same on a module, fast enough for a search, and agrees.
"""

import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from inspect import unwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode

from pipeline.base.batches import Inputs
from pipeline.base.files import scratch
from pipeline.errors import StageError, blame
from pipeline.forms.deployed.seq2seq import DECODER, ENCODER, WITH_PAST
from pipeline.forms.external_data import graphs_at, stored
from pipeline.forms.graph import EXTERNAL_DATA_BYTES
from pipeline.forms.layers import aside
from pipeline.forms.packed import is_packed, unpacked
from pipeline.forms.sandbox.session import Outside
from pipeline.forms.tracing import slow_path
from pipeline.measure.operators.macs import Shapes, counter, uncounted
from pipeline.measure.operators.quantized import packed_elements, scales_and_zero_points
from pipeline.measure.size import elements
from pipeline.model import Deployed, OnnxModel, call

WEIGHT_TYPES = {"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT4", "UINT4", "INT16", "UINT16", "INT32"}


class _Operators(_FlopCounterMode):  # type: ignore[no-untyped-call]  # of torch, which is typed in part
    """What torch's counter counts with, but for torch's compiler: loading it would take longer than the counting."""

    __torch_dispatch__ = unwrap(_FlopCounterMode.__torch_dispatch__)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def torch_params(module: nn.Module) -> int:
    """Elements of all parameters, tied ones once, without those that say how others are stored."""
    return sum(p.numel() for p in module.parameters()) - sum(p.numel() for p in aside(module))


def torch_macs(module: nn.Module, example: Inputs) -> int:
    """MACs of one example through the module, as PyTorch's operators are dispatched."""
    return int(_counted(module, example).get_total_flops()) // 2


def macs_by_module(module: nn.Module, example: Inputs) -> dict[str, int]:
    """The same by the submodule that dispatches them, without what the submodules within it do; "" is the module."""
    counts = {name: sum(flops.values()) for name, flops in _counted(module, example, apart=True).flop_counts.items()}
    prefix = type(module).__name__
    own = {"": counts.pop("Global", 0)} | {name.removeprefix(f"{prefix}."): flops for name, flops in counts.items()}
    own.pop(prefix, None)  # once more
    whole = dict(own)
    for name, flops in whole.items():
        if name:
            own[next(part for part in _around(name) if part in own)] -= flops
    return {name: flops // 2 for name, flops in own.items()}


def _around(name: str) -> Iterator[str]:
    """The names of the modules that one is in, from the inside out."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _counted(module: nn.Module, example: Inputs, apart: bool = False) -> FlopCounterMode:
    """What was counted of one example; by submodules too where they are to be told apart."""
    one = {name: value[:1] for name, value in example.items()}
    # Attention as plain products: the counter does not know the CPU's fused kernel.
    plain = sdpa_kernel(SDPBackend.MATH)
    # Nor does it know mkldnn's LSTM.
    unfused = torch.backends.mkldnn.flags(enabled=False)
    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings(), counter.mod_tracker if apart else nullcontext(), _Operators(counter):
        warnings.simplefilter("ignore")  # about the TF32 of a hardware that is not there
        with torch.no_grad(), slow_path(), plain, unfused:
            call(module, one)
    return counter


def onnx_params(model: Deployed) -> int:
    """Elements of the weights in the graph, as they are computed with, without scales, zero points, shape constants.

    Weights that several graphs of an encoder-decoder share count once, as they lie on disk.
    """
    paths = graphs_at(model.path)
    graphs = {path: onnx.load(path, load_external_data=False).graph for path in paths}
    tensors = stored(paths)
    for path in (path for path, graph in graphs.items() if is_packed(graph)):
        graphs[path] = unpacked(path).graph
        tensors = [(at, t) for at, t in tensors if at != path] + [(path, t) for t in graphs[path].initializer]
    aside = {path: scales_and_zero_points(graph) for path, graph in graphs.items()}
    packed = {path: packed_elements(graph) for path, graph in graphs.items()}
    return sum(
        packed[path].get(t.name, elements(t))
        for path, t in tensors
        if t.name not in aside[path] and onnx.TensorProto.DataType.Name(t.data_type) in WEIGHT_TYPES
    )


def counted_macs(model: Deployed) -> tuple[int | None, str | None]:
    """MACs of one example, or None and the reason why they cannot be counted."""
    try:
        return deployed_macs(model), None
    except UncountedError as error:
        return None, str(error)


class UncountedError(StageError):
    """A graph has operators of which nobody knows how many products they sum."""


def deployed_macs(model: Deployed) -> int:
    """MACs of one example: through the graph; for an encoder-decoder, to generate as many tokens as it may.

    That is the encoder once, the first step of the decoder, and each further step with what was seen before. Attention
    grows by the same with each step, so the mean of the first and the last tells the sum.
    """
    if isinstance(model, OnnxModel):
        return onnx_macs(model)
    steps = model.tokens - 1
    first, last = (
        {name: onnx_macs(OnnxModel(model.path / f"{name}.onnx", fed)) for name, fed in model.step_inputs(past).items()}
        for past in (1, max(steps, 1))
    )
    return first[ENCODER] + first[DECODER] + steps * (first[WITH_PAST] + last[WITH_PAST]) // 2


def onnx_macs(model: OnnxModel) -> int:
    """MACs of one example through the graph, in as many calls as it takes.

    Raises:
        UncountedError: operators are not known.
    """
    calls = list(model.calls({name: value[:1] for name, value in model.example.items()}))
    proto, fed = unpacked(model.path), calls[0]
    if names := uncounted(proto.graph):
        raise UncountedError(f"the MACs of {', '.join(names)} are not known")
    for value in proto.graph.input:
        if value.name in fed:
            kind, one = value.type.tensor_type.elem_type, [*fed[value.name].shape]
            value.type.CopyFrom(onnx.helper.make_tensor_type_proto(kind, one))
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    shapes = {v.name: _dims(v) for v in values if v.type.tensor_type.HasField("shape")}
    shapes |= {t.name: list(t.dims) for t in graph.initializer}
    counted = [(node, count) for node in graph.node if (count := counter(node))]
    ends = {name for node, _ in counted for name in (*node.input, *node.output) if name}
    unknown = sorted(name for name in ends if name not in shapes or 0 in shapes[name])
    if unknown:
        shapes |= _seen_shapes(proto, model, fed, unknown)
    in_a_call = sum(count(node, shapes) for node, count in counted)
    return in_a_call * len(calls) // (model.batch or 1)


def _seen_shapes(proto: onnx.ModelProto, model: OnnxModel, fed: Inputs, names: list[str]) -> Shapes:
    """Shapes of inner values that inference cannot tell, from running the graph once."""
    outputs = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    with TemporaryDirectory(dir=scratch()) as folder, blame(StageError, "counting MACs"):
        place = Path(folder) / "model.onnx"
        onnx.save(proto, place, save_as_external_data=proto.ByteSize() > EXTERNAL_DATA_BYTES)
        outside = model.outside and Outside(limits=model.outside.limits)
        inner = OnnxModel(place, fed, optimize=False, outside=outside)
        values = inner.predict(fed)
        inner.close()
    return {name: list(values[name].shape) for name in names}


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
