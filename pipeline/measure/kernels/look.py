"""One file as ONNX Runtime runs it: its nodes with their MACs and microseconds, as JSON.

Nothing here imports torch, for a file from outside is looked at in a process of its own; see `child`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from pipeline.measure.kernels.session import node_events, open_profiled
from pipeline.measure.operators.macs import Shapes, counter, uncounted

Json = dict[str, Any]
SIMPLE = (onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.FLOAT, onnx.AttributeProto.STRING)


def look(path: Path, feed: Mapping[str, Any], runs: int, target: Path) -> Json:
    """The graph as it is run, as `facts.Graph` reads it, and under `uncounted` the operators whose MACs are not known.

    Args:
        path: an ONNX file.
        feed: arrays by the file's names of one call; those that it does not take are left aside.
        runs: that are profiled; the first of several warms up.
        target: a file to write the optimized graph to; its weights and the profile go beside it.

    Raises:
        Exception: what ONNX Runtime raises where it does not load or run the file.
    """
    session = open_profiled(path, target)
    inputs = {port.name: feed[port.name] for port in session.get_inputs() if port.name in feed}
    for _ in range(runs):
        session.run(None, inputs)
    graph = onnx.load(target, load_external_data=False).graph
    by_node = _by_node(graph, node_events(session), runs)
    shapes: Shapes = {name: [*value.shape] for name, value in inputs.items()}
    for node, events in zip(graph.node, by_node, strict=True):
        shapes |= _outputs(node, events[0]) if events else {}
    return {"graph": _graph(graph, shapes, by_node), "uncounted": uncounted(graph)}


def graph_of(path: Path) -> Json:
    """The graph of a file as it lies there, as `facts.Graph` reads it, without MACs and times."""
    graph = onnx.load(path, load_external_data=False).graph
    return _graph(graph, {}, [[] for _ in graph.node])


def _by_node(graph: onnx.GraphProto, events: list[Json], runs: int) -> list[list[Json]]:
    """The events of each node, a run each; none of what cannot be told apart.

    Nodes may have no names, or one several times. But they run in the order of the file, so the events of a run stand
    for its nodes one by one, unless nodes have graphs inside them.
    """
    count = len(graph.node)
    in_order = [events[i * count : (i + 1) * count] for i in range(runs)] if len(events) == count * runs else []
    operators = [node.op_type for node in graph.node]
    if in_order and all([event["args"]["op_name"] for event in one] == operators for one in in_order):
        return [list(column) for column in zip(*in_order, strict=True)]
    by_name: dict[str, list[Json]] = {}
    for event in events:
        by_name.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event)
    named = [by_name.get(node.name, []) for node in graph.node]
    return [some if len(some) == runs else [] for some in named]


def _outputs(node: onnx.NodeProto, event: Json) -> Shapes:
    """The shapes of what a node gave, by name."""
    shapes = [[*sizes] for entry in event["args"].get("output_type_shape", ()) for sizes in entry.values()]
    names = [name for name in node.output if name]
    return dict(zip(names, shapes, strict=True)) if len(names) == len(shapes) else {}


def _graph(graph: onnx.GraphProto, shapes: Shapes, by_node: Sequence[Sequence[Json]]) -> Json:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors[node.output[0]] = next((a.t for a in node.attribute if a.name == "value"), onnx.TensorProto())
    shapes = {**shapes, **{name: [*tensor.dims] for name, tensor in tensors.items()}}
    return {
        "nodes": [_node(node, shapes, events) for node, events in zip(graph.node, by_node, strict=True)],
        "constants": {name: onnx.TensorProto.DataType.Name(t.data_type).lower() for name, t in tensors.items()},
        "shapes": shapes,
        "outputs": [value.name for value in graph.output],
    }


def _node(node: onnx.NodeProto, shapes: Shapes, events: Sequence[Json]) -> Json:
    durations = sorted(event["dur"] for event in events[1:] or events)
    durations = durations[: (len(durations) + 1) // 2]  # others may have had the processor meanwhile
    return {
        "name": node.name,
        "domain": node.domain,
        "operator": node.op_type,
        "inputs": [*node.input],
        "outputs": [*node.output],
        "attributes": {a.name: _value(a) for a in node.attribute if a.type in SIMPLE},
        "macs": _macs(node, shapes),
        "microseconds": sum(durations) / len(durations) if durations else 0.0,
    }


def _value(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return [*value] if attribute.type == onnx.AttributeProto.INTS else value


def _macs(node: onnx.NodeProto, shapes: Shapes) -> int | None:
    """Products summed; 0 for what sums none, None where a shape is not known."""
    count = counter(node)
    if count is None:
        return 0
    try:
        return int(count(node, shapes))
    except (KeyError, IndexError, ValueError):  # a shape that was not seen, or of an unusual rank
        return None
