"""Names: while a graph is quantized none that a library could take for another; afterwards the shortest.

ONNX Runtime's quantizers make names of those that are there (`w_scale`, `w_quantized`, `b0` for a copy of `b`) and do
not look whether the graph has them already. Here no name begins another, so none that is made of one meets another.
"""

import itertools
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import onnx

from pipeline.errors import ShrinkError, StageError, blame
from pipeline.forms.graph import graphs_in, refill

DISTINCT = re.compile(r"(?<![A-Za-z0-9])[nv]\d+x")
COPY = re.compile(r"(v\d+x)\d+")


@dataclass(frozen=True)
class Names:
    """The user's names, by those that a graph has while it is quantized: of its values, and of its nodes."""

    values: dict[str, str]
    nodes: dict[str, str]

    def plain(self, text: str) -> str:
        """A text with the user's names in the place of the others."""
        names = self.values | self.nodes
        return DISTINCT.sub(lambda match: names.get(match[0], match[0]), text)

    def blame(self, where: str) -> AbstractContextManager[None]:
        """As `blame` for a StageError, in the user's names."""
        return blame_plainly(where, self.plain)


@contextmanager
def blame_plainly(where: str, plain: Callable[[str], str]) -> Iterator[None]:
    """As `blame` for a StageError, with what was found made plain for the user."""
    try:
        with blame(StageError, where):
            yield
    except ShrinkError as error:
        error.found = plain(error.found)
        raise


def name_each(graph: onnx.GraphProto) -> None:
    """Give every node of a graph a name of its own, in place: those without one or with another's get a new one."""
    taken: set[str] = set()
    for i, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{i}"
        taken.add(node.name)


def distinct_names(graph: onnx.GraphProto) -> Names:
    """Rename all values and nodes of a graph, in place; what they were called before."""
    values = list(dict.fromkeys(name for part in graphs_in(graph) for name in _names(part) if name))
    old = _rename(graph, {name: f"v{i}x" for i, name in enumerate(values)} | {"": ""}, "n{}x".format)
    return Names({f"v{i}x": name for i, name in enumerate(values)}, old)


def merge_copies(graph: onnx.GraphProto) -> None:
    """Have nodes read one bias again that several of them read, of which the quantizer made a copy for each."""
    first: dict[str, str] = {tensor.name: tensor.name for tensor in graph.initializer}
    same: dict[str, str] = {}
    for tensor in graph.initializer:
        if COPY.fullmatch(tensor.name):
            same[tensor.name] = first.setdefault(COPY.sub(r"\1", tensor.name), tensor.name)
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    refill(graph.initializer, [tensor for tensor in graph.initializer if same.get(tensor.name) in (None, tensor.name)])


def compact_names(graph: onnx.GraphProto, ends: Mapping[str, str] | None = None) -> None:
    """Give short names to what is inside a graph.

    ONNX Runtime's quantizers make names such as `blocks.0.conv1.weight_DequantizeLinear_Output`, which are a good
    part of a file of 20 kB. The most frequent names become the shortest; nodes are named in their order.

    Args:
        graph: it is changed.
        ends: new names of its inputs and outputs; where there is none they keep theirs.
    """
    fixed = {"": ""} | {value.name: value.name for value in (*graph.input, *graph.output)}
    fixed |= {name: ends[name] for name in fixed if ends and name in ends}
    names = Counter(name for part in graphs_in(graph) for name in _names(part))
    taken = set(fixed.values())
    short = (name for name in words() if name not in taken)
    node_names = words()
    mapping = {name: fixed[name] if name in fixed else next(short) for name, _ in names.most_common()}
    _rename(graph, mapping, lambda _: next(node_names))


def _rename(graph: onnx.GraphProto, values: Mapping[str, str], node_name: Callable[[int], str]) -> dict[str, str]:
    """Rename values by a mapping and nodes by their number; the old names of nodes, by the new ones."""
    old: dict[str, str] = {}
    for part in graphs_in(graph):
        part.ClearField("quantization_annotation")
        for node in part.node:
            name = node_name(len(old))
            old[name], node.name = node.name, name
            node.input[:] = [values[name] for name in node.input]
            node.output[:] = [values[name] for name in node.output]
        for entry in _entries(part):
            entry.name = values[entry.name]
    return old


def _entries(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto | onnx.TensorProto]:
    sparse = (tensor.values for tensor in graph.sparse_initializer)
    return [*graph.input, *graph.output, *graph.value_info, *graph.initializer, *sparse]


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Each name of a value, as often as it is written."""
    yield from (entry.name for entry in _entries(graph))
    for node in graph.node:
        yield from (*node.input, *node.output)


def words() -> Iterator[str]:
    """a, b, ... aa, ab, ...: letters alone, as ONNX asks for identifiers."""
    for length in itertools.count(1):
        yield from ("".join(word) for word in itertools.product(string.ascii_letters, repeat=length))
