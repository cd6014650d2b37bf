"""What of a graph would be quantized, and what would stay in fp32, told before any work."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import onnx

from pipeline.base.formatting import few
from pipeline.errors import ConfigError, Note
from pipeline.forms.graph import QDQ
from pipeline.model import Model, OnnxModel
from stages.quantize.graphs.masks import FLOATS
from stages.quantize.graphs.names import name_each

MOVES = (
    "Transpose",
    "Reshape",
    "Identity",
    "Cast",
    "Unsqueeze",
    "Squeeze",
)  # of weights, folded before
PRODUCTS = {"MatMul", "Gemm"}  # of which pre-processing makes one another


def reached(model: Model, operators: Collection[str], exclude: Sequence[str] = ()) -> Iterator[Note]:
    """The nodes with weights of these operators, and the weights of others, by name; nothing where they are unknown.

    Args:
        model: an untrained one; told where it is an ONNX file.
        operators: types of the nodes to quantize.
        exclude: names of nodes to leave alone.

    Raises:
        ConfigError: no node with a weight is of these operators.
    """
    if not isinstance(model, OnnxModel):
        return
    proto = onnx.load(model.path, load_external_data=False)
    name_each(proto.graph)  # as for the run, so that `exclude` means the same nodes
    pairs = _weighted(proto.graph)
    kinds = {*operators} | (PRODUCTS if PRODUCTS & {*operators} else set())
    to_do = [(node, weight) for node, weight in pairs if node.op_type in kinds and node.name not in exclude]
    rest = [pair for pair in pairs if pair not in to_do]
    if pairs and not to_do and not proto.functions:
        problem = f"the nodes with weights are {_counts(rest)}, and none of them would be quantized"
        raise ConfigError(problem, expected=f"some of `operators` ({', '.join(operators)})", fix="Name theirs there")
    if to_do:
        stays = f"; {_told(rest)} {'stays' if len(rest) == 1 else 'stay'} in fp32" if rest else ""
        yield Note(f"quantizes {_told(to_do)}{stays}")


def _weighted(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, str]]:
    """The nodes that read a constant of two axes or more, and its name; nodes that only move it aside."""
    origin = {t.name: t.name for t in graph.initializer if len(t.dims) > 1 and t.data_type in FLOATS}
    pairs = []
    for node in graph.node:
        weights = [origin[name] for name in node.input if name in origin]
        if weights and node.op_type in MOVES:
            origin[node.output[0]] = weights[0]
        elif weights and node.op_type not in QDQ:
            pairs.append((node, weights[0]))
    return pairs


def _told(pairs: Sequence[tuple[onnx.NodeProto, str]]) -> str:
    return f"{_counts(pairs)} ({few([f'`{weight}`' for _, weight in pairs])})"


def _counts(pairs: Sequence[tuple[onnx.NodeProto, str]]) -> str:
    counts = Counter(node.op_type for node, _ in pairs)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
