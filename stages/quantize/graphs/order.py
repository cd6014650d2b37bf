"""The order of nodes where branches and loops read values from outside, which ONNX Runtime's quantizers do not see."""

from graphlib import TopologicalSorter

import onnx

from pipeline.forms.graph import graphs_inside, read_by, reads, refill


def name_captures(graph: onnx.GraphProto) -> None:
    """Hand each computed value that an inner graph reads to an Identity of its own, in place, and let it read that.

    Then the value is read by a node that the quantizers see, and stays, whatever they make of its other readers.
    """
    outputs = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    inner_graphs = [inner for node in graph.node for inner in graphs_inside(node)]
    captured = outputs.intersection(name for inner in inner_graphs for name in reads(inner))
    new = {name: f"{name}_captured" for name in sorted(captured)}
    for inner in inner_graphs:
        for node in inner.node:
            node.input[:] = [new.get(name, name) for name in node.input]
        for value in inner.output:
            value.name = new.get(value.name, value.name)
    graph.node.extend(onnx.helper.make_node("Identity", [old], [name], name) for old, name in new.items())
    sort(graph)


def sort(graph: onnx.GraphProto) -> None:
    """Put the nodes, where there are graphs inside them, after what they and these read."""
    if any(True for node in graph.node for _ in graphs_inside(node)):
        put_in_order(graph)


def put_in_order(graph: onnx.GraphProto) -> None:
    """Put the nodes after what they, and the graphs inside them, read."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needs = {i: sorted({makers[name] for name in read_by(node) if name in makers}) for i, node in enumerate(graph.node)}
    nodes = list(graph.node)
    refill(graph.node, [nodes[i] for i in TopologicalSorter(needs).static_order()])
