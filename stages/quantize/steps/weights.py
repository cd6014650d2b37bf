"""A graph whose weights have 8, 4 or 2 bits, in blocks, and whose activations stay in fp32."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from stages.quantize.blocks.methods import Method, quantized
from stages.quantize.blocks.nodes import Tensors, fits, import_operators, put, rows_of, weight_of
from stages.quantize.blocks.rows import Rows
from stages.quantize.graphs.masks import hidden_weights, touching
from stages.quantize.graphs.reasons import NEAREST, SHAPE, WEIGHT
from stages.quantize.graphs.rewrite import chosen, drop_unread
from stages.quantize.quantizing.calibration_data import CalibrationData
from stages.quantize.rounding.codes import Floats
from stages.quantize.rounding.layers import Scheme
from stages.quantize.rounding.moments import Moments
from stages.quantize.rounding.rounder import Entry
from stages.quantize.steps.files import Done, Files


@dataclass(frozen=True)
class Settings:
    """Those of `quantize.weights`; `exclude` has names of the graph, `schemes` the bits of each node by these."""

    operators: list[str]
    exclude: list[str]
    method: Method
    block_size: int
    symmetric: bool
    has_int8_inputs: bool
    schemes: dict[str, Scheme]
    named: list[str]


def weights(files: Files, *, data: CalibrationData | None = None, **arguments: Any) -> Done:
    """The graph with weights of few bits.

    Args:
        files: as in `do`.
        data: for the method gptq.
        arguments: of `Settings`.

    Raises:
        ValueError: a node that the user names stays in fp32.
    """
    settings = Settings(**arguments)
    proto = onnx.load(files.source)
    graph = proto.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    asked = chosen(graph, settings.operators, settings.exclude)
    asked = {name: node for name, node in asked.items() if name in settings.schemes}
    hidden = [name for name in touching(graph, hidden_weights(graph, settings.operators)) if name in asked]
    others = [n for n, node in asked.items() if n not in hidden and not fits(node, tensors, _bits(settings, n))]
    left = {WEIGHT: hidden, SHAPE: others}
    nodes = {name: node for name, node in asked.items() if name not in (*hidden, *others)}
    if lost := [name for name in settings.named if name not in nodes]:
        raise ValueError(f"the node `{lost[0]}` is named in `layers` and stays in fp32. Leave it out there")
    products = [node for node in nodes.values() if node.op_type != "Gather"]
    moments = _moments(files, products, tensors, data) if data else None
    entries = [*_put(graph, nodes, tensors, settings, moments)]
    drop_unread(graph, tensors)
    import_operators(proto)
    files.save(proto, files.target)
    unheeding = [n.name for n in graph.node if n.name in nodes and n.op_type == "GatherBlockQuantized"]
    return Done({**left, NEAREST: unheeding if settings.method in ("gptq", "hqq") else []}, entries)


def _bits(settings: Settings, name: str) -> int:
    return int(settings.schemes[name]["bits"])


def _moments(files: Files, nodes: list[onnx.NodeProto], tensors: Tensors, data: CalibrationData) -> Moments:
    moments = Moments(files.source, [(_copy(node), tuple(tensors[weight_of(node)].dims)) for node in nodes])
    data.also = moments.add
    data.read()
    return moments


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _put(
    graph: onnx.GraphProto,
    nodes: dict[str, onnx.NodeProto],
    tensors: Tensors,
    settings: Settings,
    moments: Moments | None,
) -> Iterator[Entry]:
    """Put the counterparts in the places of nodes; what became of each weight, made once where nodes share it."""
    known: dict[tuple[str, bool], tuple[Rows, Entry]] = {}
    keys = {name: (weight_of(node), node.op_type == "Gather") for name, node in nodes.items()}
    sums = {name: _sums(node, tensors, moments) for name, node in nodes.items()}
    for name, node in nodes.items():
        key = keys[name]
        if key not in known:
            array = rows_of(node, numpy_helper.to_array(tensors[key[0]]))
            sharing = [total for n, total in sums.items() if keys[n] == key and total is not None]
            products = np.sum(sharing, 0) if sharing else None
            rows = _rows(array, settings, _bits(settings, name), key[1], products)
            known[key] = rows, {"weight": key[0], **settings.schemes[name], "error": _errors(array, rows, products)}
        rows, entry = known[key]
        put(graph, node, rows, settings.has_int8_inputs)
        yield {"node": name, **entry}


def _sums(node: onnx.NodeProto, tensors: Tensors, moments: Moments | None) -> Floats | None:
    if moments is None or node.op_type == "Gather":
        return None
    return np.asarray(moments.of(node, tuple(tensors[weight_of(node)].dims)).products[0], np.float64)


def _rows(array: Floats, settings: Settings, bits: int, is_table: bool, products: Floats | None) -> Rows:
    # Tables have no inputs to heed, and their operator takes whole zero points alone.
    method: Method = "nearest" if is_table and settings.method in ("gptq", "hqq") else settings.method
    return quantized(method, array, bits, settings.block_size, settings.symmetric, products)


def _errors(array: Floats, rows: Rows, products: Floats | None) -> dict[str, float]:
    weights = array.astype(np.float64)
    change = rows.dequantized - weights
    errors = {"weights": _share((change**2).sum(), (weights**2).sum())}
    if products is not None:
        errors["outputs"] = _share((change @ products * change).sum(), (weights @ products * weights).sum())
    return errors


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0
