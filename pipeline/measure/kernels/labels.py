"""What a person calls the layers of a file whose names were shortened: as in the file before it."""

from pipeline.measure.kernels.facts import Graph, Node

FAMILIES = {
    "ConvInteger": "Conv", "DynamicQuantizeLSTM": "LSTM", "Gemm": "MatMul", "MatMulInteger": "MatMul",
    "MatMulNBits": "MatMul",
}  # fmt: skip
"""What quantizers make of an operator, and what it was."""
LAYERS = {"Conv", "ConvTranspose", "GRU", "LSTM", "MatMul", "RNN"}


def labels(before: Graph, after: Graph) -> dict[str, str]:
    """The layer of each node with a weight of `after`, by the node's name.

    Layers are told by their order, so they are those of `before` only where both have the same operators.
    """
    old, new = _layers(before), _layers(after)
    names = [_layer(node, before) for node in (old if _families(old) == _families(new) else new)]
    own = [_layer(node, after) for node in new]
    return {node.name: name or mine for node, name, mine in zip(new, names, own, strict=True) if name or mine}


def _layers(graph: Graph) -> list[Node]:
    return [
        node
        for node in graph.nodes
        if _family(node) in LAYERS and any(name and graph.is_constant(name) for name in node.inputs[1:])
    ]


def _families(nodes: list[Node]) -> list[str]:
    return [_family(node) for node in nodes]


def _family(node: Node) -> str:
    return FAMILIES.get(node.operator, node.operator)


def _layer(node: Node, graph: Graph) -> str:
    """The module that a weight's name tells, such as "blocks.0.conv1"; "" where it tells none."""
    for name in node.inputs[1:]:
        while (maker := graph.makers.get(name)) and maker.inputs and graph.is_constant(name):
            name = maker.inputs[0]
        module, dot, _ = name.rpartition(".")
        if dot and name in graph.constants:
            return module
    return ""
