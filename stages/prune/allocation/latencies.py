"""How long layers take at other widths, measured once each in ONNX Runtime: kernels like some more than others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from pipeline.base.batches import Inputs
from pipeline.base.files import scratch
from pipeline.measure.kernels.session import node_events, open_profiled
from pipeline.model import call
from stages.layerwise.calibration import looking
from stages.prune.allocation.search import Counts
from stages.prune.coupling.cells import GATES, Cell
from stages.prune.coupling.coupled import Coupled
from stages.prune.coupling.parts import LAYERS, Part, is_depthwise, known

SECONDS, FEWEST, MOST = 5e-3, 3, 50
"""So long a layer is run, but so many times at least and at most; the fastest quarter counts."""
OPSET = 20
RECURRENT = {mode.partition("_")[0]: gates for mode, gates in GATES.items()}


class Kind(NamedTuple):
    """What a layer's time depends on beside its widths.

    Args:
        shape: of what it reads, without the channels; steps and examples of a recurrent layer.
        operator: Conv, ConvTranspose, MatMul, or LSTM, GRU or RNN.
        kernel: its sizes; none of a product; directions of a recurrent layer.
        attributes: of the operator, by name.
        groups: of a convolution; 0 where each channel is one.
    """

    shape: tuple[int, ...]
    operator: str
    kernel: tuple[int, ...] = ()
    attributes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    groups: int = 1


class Layer(NamedTuple):
    """A layer as it runs; of a recurrent one, each of the layers in it, in all directions.

    Args:
        kind: of the layer.
        calls: how often it runs so.
        widths: (2,) channels that it reads and gives.
        falling: (2, groups) by how much a channel less in each group narrows them.
    """

    kind: Kind
    calls: int
    widths: NDArray[np.int64]
    falling: NDArray[np.int64]


@dataclass(frozen=True)
class Latencies:
    """Seconds of the layers of one example, on one thread, by the channels that groups keep.

    What a kernel takes at a width is measured when it is asked for.

    Args:
        layers: convolutions, linear and recurrent ones, as they run in the whole module.
        full: (groups,) channels of each.
        seconds: by kind, inputs and outputs, as far as it is known.
    """

    layers: Sequence[Layer]
    full: NDArray[np.int64]
    seconds: dict[tuple[Kind, int, int], float]

    def of(self, counts: Counts, group: int | None = None) -> float:
        """Of all layers, or of those that a group narrows."""
        gone = self.full - counts
        some = [one for one in self.layers if group is None or one.falling[:, group].any()]
        return sum(one.calls * self._kernel(one.kind, *(one.widths - one.falling @ gone).tolist()) for one in some)

    def _kernel(self, kind: Kind, inputs: int, outputs: int) -> float:
        key = (kind, inputs, outputs)
        if key not in self.seconds:
            self.seconds[key] = _measured(kind, inputs, outputs)
        return self.seconds[key]


def latencies_of(module: nn.Module, example: Inputs, groups: Sequence[Coupled], seconds: dict[Any, float]) -> Latencies:
    """Those of a module whose groups of channels become narrower.

    Args:
        module: whole.
        example: a batch of its inputs, of which one is run.
        groups: what can be removed.
        seconds: what was measured before, to which more is added.
    """
    parts = known(module)
    layers = [
        Layer(kind, calls, _widths(parts[name]), _falling(name, parts[name], groups))
        for (name, kind), calls in _kinds(module, example).items()
    ]
    return Latencies(layers, np.array([len(group.scores) for group in groups]), seconds)


def _kinds(module: nn.Module, example: Inputs) -> Counter[tuple[str, Kind]]:
    """How often each layer runs for one example, and as what."""
    kinds: Counter[tuple[str, Kind]] = Counter()

    def see(name: str, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        values = args[0] if args else next(iter(kwargs.values()))
        if isinstance(part, nn.RNNBase):
            for i in range(part.num_layers):
                kinds[f"{name}.l{i}", _recurrent_kind(part, values)] += 1
        else:
            kinds[name, _kind(part, values)] += 1

    layers = [name for name, part in module.named_modules() if isinstance(part, (*LAYERS, nn.RNNBase))]
    with looking(module, {name: partial(see, name) for name in layers}):
        call(module, {name: value[:1] for name, value in example.items()})
    return kinds


def _kind(layer: nn.Module, values: Tensor) -> Kind:
    shape = tuple(values.shape)
    if not isinstance(layer, _ConvNd):
        return Kind(shape[:-1], "MatMul")
    spread = [step * (size - 1) // 2 for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
    named = {"valid": [0] * len(spread), "same": spread}
    padding = named[layer.padding] if isinstance(layer.padding, str) else layer.padding
    attributes = {"strides": layer.stride, "dilations": layer.dilation, "pads": (*padding, *padding)}
    is_transposed = isinstance(layer, _ConvTransposeNd)
    attributes |= {"output_padding": layer.output_padding} if is_transposed else {}
    operator = "ConvTranspose" if is_transposed else "Conv"
    groups = 0 if is_depthwise(layer) else layer.groups
    return Kind((shape[0], *shape[2:]), operator, tuple(layer.kernel_size), tuple(attributes.items()), groups)


def _recurrent_kind(rnn: nn.RNNBase, values: Any) -> Kind:
    read: Tensor = getattr(values, "data", values)  # of a packed sequence too
    steps, examples = (read.shape[0], 1) if read.ndim == 2 else read.shape[:2]
    shape = (examples, steps) if rnn.batch_first and read.ndim > 2 else (steps, examples)
    attributes = (("linear_before_reset", (1,)),) if rnn.mode == "GRU" else ()
    return Kind(shape, rnn.mode.partition("_")[0], (1 + rnn.bidirectional,), attributes)


def _widths(layer: Part) -> NDArray[np.int64]:
    if isinstance(layer, Cell):
        return np.array([layer.weight("weight_ih").shape[1], layer.hidden_size])
    ends = ("in_channels", "out_channels") if isinstance(layer, _ConvNd) else ("in_features", "out_features")
    return np.array([getattr(layer, end) for end in ends])


def _falling(name: str, layer: Part, groups: Sequence[Coupled]) -> NDArray[np.int64]:
    falling = np.zeros((2, len(groups)), dtype=np.int64)
    for column, group in enumerate(groups):
        for place, channels in group.without([0]).items():
            if place.name == name:
                rows = [0, 1] if is_depthwise(layer) else [int(place.side == "out")]
                falling[rows, column] += len(channels)
    return falling


def _measured(kind: Kind, inputs: int, outputs: int) -> float:
    """Of the layer's own kernel, without what changes the layout around it, as few layers of a network do."""
    graph, values = _graph(kind, inputs, outputs)
    with TemporaryDirectory(dir=scratch()) as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10), path)
        session = open_profiled(path, Path(folder) / "optimized.onnx")
        until, runs = perf_counter() + SECONDS, 0
        while runs < FEWEST or (perf_counter() < until and runs < MOST):
            session.run(None, values)
            runs += 1
        events = [event for event in node_events(session) if not event["args"]["op_name"].startswith("Reorder")]
    microseconds = np.sort([event["dur"] for event in events])
    return float(microseconds[: 1 + len(microseconds) // 4].mean()) * 1e-6


def _graph(kind: Kind, inputs: int, outputs: int) -> tuple[onnx.GraphProto, dict[str, Any]]:
    """A graph of the layer alone, and what it reads."""
    draw = np.random.default_rng(0)
    shapes, read, attributes = [[inputs, outputs]], (*kind.shape, inputs), dict[str, Any]()
    if kind.operator in RECURRENT:
        directions, gates = kind.kernel[0], RECURRENT[kind.operator]
        shapes = [[directions, gates * outputs, columns] for columns in (inputs, outputs)]
        attributes = {name: value for name, (value,) in kind.attributes}
        attributes |= {"hidden_size": outputs, "direction": "bidirectional" if directions > 1 else "forward"}
    elif kind.operator != "MatMul":
        groups = kind.groups or inputs
        read, attributes = (kind.shape[0], inputs, *kind.shape[1:]), {**dict(kind.attributes), "group": groups}
        is_transposed = kind.operator == "ConvTranspose"
        shapes = [[*((inputs, outputs // groups) if is_transposed else (outputs, inputs // groups)), *kind.kernel]]
    weights = [
        numpy_helper.from_array(draw.standard_normal(shape, dtype=np.float32), f"weight_{i}")
        for i, shape in enumerate(shapes)
    ]
    node = helper.make_node(kind.operator, ["x", *(weight.name for weight in weights)], ["y"], **attributes)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, of) for name, of in (("x", read), ("y", None)))
    return helper.make_graph([node], "layer", [x], [y], weights), {"x": draw.standard_normal(read, dtype=np.float32)}
