"""Nodes that follow each other in the same way again and again, written once as a function of the file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import onnx

from pipeline.forms.graph import graphs_inside, opset, read_by, refill
from stages.quantize.graphs.names import words

DOMAIN = "f"
ENTRY_BYTES = 3
"""Of a message inside a message: its tag and its length."""


class Pair(NamedTuple):
    """A node and the one that alone reads it."""

    first: onnx.NodeProto
    second: onnx.NodeProto

    @property
    def inputs(self) -> list[str]:
        """What both read of others, each once; "" stands for an input that is left out."""
        names = [*self.first.input, *(name for name in self.second.input if name != self.first.output[0])]
        return [name for name in dict.fromkeys(names) if name]

    def body(self) -> list[onnx.NodeProto]:
        """Both with names that tell nothing but how they are connected."""
        names = dict(zip([*self.inputs, *self.ends], words(), strict=False)) | {"": ""}
        nodes = []
        for node in self:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.ClearField("name")
            copy.input[:] = [names[name] for name in node.input]
            copy.output[:] = [names[name] for name in node.output]
            nodes.append(copy)
        return nodes

    @property
    def ends(self) -> list[str]:
        """What the first gives, and what the second does."""
        return [*self.first.output, *self.second.output]


def call_again(proto: onnx.ModelProto, fixed: Sequence[onnx.NodeProto] = ()) -> None:
    """Put calls of functions in the place of nodes, in place, as long as the graph gets smaller by it.

    The most frequent pair becomes a function, then the most frequent pair of what is there now, as in byte-pair
    encoding: so a convolution with all that belongs to it becomes one call. ONNX Runtime puts functions in when it
    loads a file; OpenVINO 2026.4 does not read such a file.

    Args:
        proto: its nodes have names that are short.
        fixed: nodes that stay.

    Reference: Philip Gage, "A New Algorithm for Data Compression", 1994.
    """
    kept = {node.output[0] for node in fixed}
    for name in words():
        pairs = _pairs(proto.graph, kept)
        saved, key = max(_saved(pairs, proto), default=(0, b""))
        if saved <= 0:
            break
        _replace(proto, [*_apart(pairs, key)], name)
    if proto.functions:
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


def _pairs(graph: onnx.GraphProto, fixed: set[str]) -> list[tuple[Pair, bytes]]:
    """The pairs of which no node is in two, and for each what it is, by its bytes."""
    reads = Counter(name for node in graph.node for name in read_by(node))
    reads.update(value.name for value in graph.output)
    makers = {node.output[0]: node for node in graph.node if _may_move(node, fixed)}
    every = []
    for node in (node for node in graph.node if _may_move(node, fixed)):
        for name in dict.fromkeys(node.input):
            if name in makers and reads[name] == 1:
                pair = Pair(makers[name], node)
                every.append((pair, b"".join(part.SerializeToString(deterministic=True) for part in pair.body())))
    return every


def _may_move(node: onnx.NodeProto, fixed: set[str]) -> bool:
    return len(node.output) == 1 and node.output[0] not in fixed and not any(True for _ in graphs_inside(node))


def _apart(pairs: Sequence[tuple[Pair, bytes]], key: bytes) -> Iterator[Pair]:
    """The pairs of a kind, without those that share a node with one before."""
    taken: set[str] = set()
    for pair, kind in pairs:
        if kind == key and taken.isdisjoint(pair.ends):
            taken.update(pair.ends)
            yield pair


def _saved(pairs: Sequence[tuple[Pair, bytes]], proto: onnx.ModelProto) -> Iterator[tuple[int, bytes]]:
    """For each kind of pair the bytes that a function of it would save."""
    for key in dict.fromkeys(key for _, key in pairs):
        some = [*_apart(pairs, key)]
        function = _function(proto, some[0], "a").ByteSize() + ENTRY_BYTES
        before = sum(node.ByteSize() + ENTRY_BYTES for pair in some for node in pair)
        yield before - sum(_call(pair, "a").ByteSize() + ENTRY_BYTES for pair in some) - function, key


def _function(proto: onnx.ModelProto, pair: Pair, name: str) -> onnx.FunctionProto:
    body = pair.body()
    imports = [onnx.helper.make_opsetid(domain, 1 if domain else opset(proto)) for domain in {n.domain for n in body}]
    inputs = [word for word, _ in zip(words(), pair.inputs, strict=False)]
    return onnx.helper.make_function(
        DOMAIN, name, inputs, body[1].output, body, sorted(imports, key=lambda o: o.domain)
    )


def _call(pair: Pair, name: str) -> onnx.NodeProto:
    return onnx.helper.make_node(name, pair.inputs, pair.second.output, domain=DOMAIN)


def _replace(proto: onnx.ModelProto, pairs: Sequence[Pair], name: str) -> None:
    proto.functions.append(_function(proto, pairs[0], name))
    calls = {pair.second.output[0]: _call(pair, name) for pair in pairs}
    gone = {pair.first.output[0] for pair in pairs}
    nodes = [calls.get(node.output[0], node) for node in proto.graph.node if node.output[0] not in gone]
    refill(proto.graph.node, nodes)
