"""Which integers the weight of each node may take, as the user's names say it."""

from collections.abc import Collection, Iterator, Mapping
from math import prod

import onnx

from pipeline.base.use import nearest
from pipeline.errors import StageError
from stages.quantize.graphs.masks import FLOATS
from stages.quantize.graphs.names import Names
from stages.quantize.rounding.layers import PLAIN, Scheme
from stages.quantize.rounding.layout import WEIGHTS

FUSED = "/MatMulAddFusion"
"""What ONNX Runtime appends to the name of a MatMul that it makes a Gemm with the Add behind it."""
Readers = dict[str, onnx.NodeProto]


def schemes(
    graph: onnx.GraphProto,
    names: Names,
    asked: Collection[str],
    default: Scheme,
    ends: Scheme,
    layers: Mapping[str, Scheme],
) -> tuple[dict[str, Scheme], list[str]]:
    """The integers that the weight of each node may take, and the nodes that `layers` names.

    Args:
        graph: the prepared graph; the data of its weights are not read.
        names: what its nodes and values were called.
        asked: names of the nodes that will be quantized.
        default: for the nodes that nothing else is said of.
        ends: for the first and the last node with a weight.
        layers: by the name of a node, of a layer, or of what layers are in, of which the longest counts.

    Raises:
        StageError: a name is unknown, its node is not quantized, nodes with one weight are to have different integers,
            a codebook is larger than the weight, or all stay at 8 bits where fewer are asked for.
    """
    weighted = readers(graph)
    called = {name: [*labels(graph, node, names)] for name, node in weighted.items()}
    named = _named(called, layers)
    for name, (key, _) in named.items():
        if name not in asked:
            raise _not_rounded(key, names.nodes[name], weighted[name].op_type)
    first_and_last = [*weighted][:1] + [*weighted][-1:]
    usual = dict.fromkeys(weighted, default) | dict.fromkeys(first_and_last, ends)
    told = {name: scheme for name, (_, scheme) in named.items()}
    chosen = {**usual, **told}
    for some in _sharing(graph, weighted):
        chosen |= dict.fromkeys(some, _agreed(some, usual, told, names))
    chosen = {name: scheme for name, scheme in chosen.items() if name in asked}
    _check_codebooks(graph, weighted, chosen, names)
    if default != PLAIN and all(scheme == PLAIN for scheme in chosen.values()):
        problem = "all weights stay at 8 bits: the first and the last node do unless they are named"
        raise StageError(problem, fix="Name them in `layers`, or set `first_last`")
    return chosen, [*named]


def _not_rounded(key: str, name: str, operator: str) -> StageError:
    problem = f"`layers` has `{key}`, and the weight of the node `{name}`, a {operator}, is not rounded here"
    fix = "Leave it out there, or name its operator in `operators` and not the node in `exclude`"
    return StageError(problem, fix=fix)


def readers(graph: onnx.GraphProto) -> Readers:
    """The nodes with a constant weight, by name, in their order."""
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type in FLOATS}
    return {
        node.name: node
        for node in graph.node
        if any(node.input[place] in weights for place in WEIGHTS.get(node.op_type, ()))
    }


def labels(graph: onnx.GraphProto, node: onnx.NodeProto, names: Names) -> Iterator[str]:
    """What a user may call a node: its name, that of its weight, and that of the layer that has the weight or bias."""
    yield names.nodes[node.name]
    yield names.nodes[node.name].removesuffix(FUSED)
    behind = [other for other in graph.node if other.op_type == "Add" and node.output[0] in other.input]
    weights = [node.input[place] for place in WEIGHTS[node.op_type]]
    for name in (*weights, *node.input[1:], *(name for other in behind[:1] for name in other.input)):
        plain = names.values.get(name, "")
        if plain.endswith((".weight", ".bias")):
            yield plain.rpartition(".")[0]
        if plain.endswith((".weight", ".bias")) or name in weights:
            yield plain


def _named(called: Mapping[str, list[str]], layers: Mapping[str, Scheme]) -> dict[str, tuple[str, Scheme]]:
    """The key and the scheme of each node that a key of `layers` means."""
    named: dict[str, tuple[str, Scheme]] = {}
    for key, scheme in sorted(layers.items(), key=lambda item: len(item[0])):  # a longer name says it more precisely
        meant = [n for n, some in called.items() if any(f"{label}.".startswith(f"{key}.") for label in some)]
        if not meant:
            known = [*dict.fromkeys(label for some in called.values() for label in some)]
            problem = f"`layers` has `{key}`, and no node with a weight or layer has that name{nearest(key, known)}"
            raise StageError(problem, expected="names of nodes, or of layers as their weights and biases have them")
        named |= dict.fromkeys(meant, (key, scheme))
    return named


def _sharing(graph: onnx.GraphProto, weighted: Readers) -> list[list[str]]:
    """The names of the nodes that read one weight, for each weight that several read."""
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type in FLOATS}
    sharing: dict[str, list[str]] = {}
    for name, node in weighted.items():
        for place in WEIGHTS[node.op_type]:
            if node.input[place] in weights:
                sharing.setdefault(node.input[place], []).append(name)
    return [some for some in sharing.values() if len(some) > 1]


def _agreed(some: list[str], usual: dict[str, Scheme], told: dict[str, Scheme], names: Names) -> Scheme:
    """The scheme of a weight that some nodes read: the one that `layers` names, else that of the first or last."""
    named = [told[name] for name in some if name in told]
    if any(scheme != named[0] for scheme in named):
        shared = " and ".join(f"`{names.nodes[name]}`" for name in some)
        raise StageError(f"`layers` has different bits for {shared}, which share a weight", fix="Name one of them")
    ordinary = [usual[name] for name in some]
    return named[0] if named else min(ordinary, key=[*usual.values()].count)


def _check_codebooks(graph: onnx.GraphProto, weighted: Readers, chosen: dict[str, Scheme], names: Names) -> None:
    sizes = {tensor.name: prod(tensor.dims) for tensor in graph.initializer}
    for name, scheme in chosen.items():
        node = weighted[name]
        size = min(sizes.get(node.input[place], 0) for place in WEIGHTS[node.op_type])
        if scheme.get("codebook", 0) > size:
            problem = f"a codebook of {scheme['codebook']} values is larger than the {size} weights of"
            fix = "Give it fewer values, or the node 8 bits in `layers`"
            raise StageError(f"{problem} `{names.nodes[name]}`", fix=fix)
