"""The products of integers in a graph as ONNX Runtime runs it, and which of them saturate on x86 without VNNI."""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from pipeline.measure.isa.errors import UnknownError
from pipeline.measure.isa.graphs.columns import Window
from pipeline.measure.isa.graphs.pairs import Pairs, saturable

Constants = Mapping[str, NDArray[Any]]

WEIGHTS = {
    "QLinearConv": (0, 3, 2),
    "QLinearMatMul": (0, 3, 2),
    "QGemm": (0, 3, 2),
    "MatMulInteger": (0, 1, 2),
    "MatMulIntegerToFloat": (0, 1, 4),
    "DynamicQuantizeMatMul": (0, 1, None),
}
"""Operators whose kernels add pairs of products, with the places of value, weight and the value's zero point."""
UNKNOWN = {"DynamicQuantizeLSTM", "QAttention", "QMoE", "MoE", "QOrderedMatMul", "QOrderedAttention"}
"""Operators with integer products of which it is not known what they answer elsewhere."""


@dataclass(frozen=True)
class Product:
    """A product of uint8 values with a constant int8 weight.

    Args:
        node: as ONNX Runtime runs it.
        weight: (K, N), or (N, C/G, ...) of a convolution.
        pairs: those that can saturate.
        window: of a convolution.
    """

    node: onnx.NodeProto
    weight: NDArray[np.int8]
    pairs: Pairs
    window: Window | None = None

    @property
    def name(self) -> str:
        """The node's, or that of its weight."""
        return str(self.node.name or self.node.input[WEIGHTS[self.node.op_type][1]])

    @property
    def outputs(self) -> int:
        """How many sums there are for each row or position."""
        return int(self.weight.shape[0 if self.window else 1])

    @property
    def pairs_a_sum(self) -> int:
        """How many pairs of products a sum has."""
        depth = self.weight[0].size if self.window else len(self.weight)
        return (depth + 1) // 2


def products(node: onnx.NodeProto, constants: Constants, kinds: Mapping[str, int]) -> Iterator[Product]:
    """The node's product where it can saturate, else nothing.

    Args:
        node: of the graph as ONNX Runtime runs it.
        constants: by name.
        kinds: types of values, as far as they are known.

    Raises:
        UnknownError: it is a product of which it is not known what it answers elsewhere.
    """
    _refuse(node, constants)
    if node.op_type not in WEIGHTS:
        return
    value, weight, zero_point = WEIGHTS[node.op_type]
    array = constants.get(node.input[weight])
    if _kind(node, zero_point, value, constants, kinds) != TensorProto.UINT8:
        _refuse_signed(node, array)
        return  # kernels for signed values add in 32 bits
    if array is None:
        if kinds.get(node.input[weight]) == TensorProto.INT8:
            raise UnknownError(f"`{node.name}` ({node.op_type}) multiplies with int8 values that are not constant")
        return
    if array.dtype != np.int8:
        return  # with unsigned weights they add in 32 bits too
    if product := _product(node, array):
        yield product


def _product(node: onnx.NodeProto, weight: NDArray[np.int8]) -> Product | None:
    if node.op_type == "QLinearConv":
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        if weight.shape[1] == 1 and weight.shape[0] == groups:
            return None  # depthwise kernels add in 32 bits
        window = Window.of(node, weight.shape[2:])
        pairs = window.pairs(weight)
        return Product(node, weight, pairs, window) if pairs.size else None
    if any(a.i for a in node.attribute if a.name == "transB"):
        weight = weight.T
    if weight.ndim != 2:
        if weight.ndim > 2 and not saturable(np.moveaxis(weight, -2, 0).reshape(weight.shape[-2], -1)).size:
            return None
        raise UnknownError(f"the weight of `{node.name}` ({node.op_type}) has {weight.ndim} axes", expected="two")
    pairs = saturable(weight)
    return Product(node, weight, pairs) if pairs.size else None


def _kind(node: onnx.NodeProto, place: int | None, value: int, constants: Constants, kinds: Mapping[str, int]) -> int:
    """The type of the value that is multiplied, by its zero point where it has a constant one."""
    if place is None:
        return int(TensorProto.UINT8)
    name = node.input[place] if place < len(node.input) else ""
    if name in constants:
        return int(onnx.helper.np_dtype_to_tensor_dtype(constants[name].dtype))
    return kinds.get(node.input[value], int(TensorProto.UINT8))


def _refuse_signed(node: onnx.NodeProto, weight: NDArray[Any] | None) -> None:
    """Raise UnknownError for signed values where ONNX Runtime does not show what it would make of them on x86."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    if weight is not None and weight.dtype == np.int8 and not is_x86:
        problem = f"the values of `{node.name}` ({node.op_type}) are int8, which ONNX Runtime makes uint8 on x86 alone"
        raise UnknownError(problem, fix="Run it on an x86 CPU, or quantize with activations: uint8")


def _refuse(node: onnx.NodeProto, constants: Constants) -> None:
    """Raise UnknownError for an operator that is not known."""
    weights = [constants[name] for name in node.input if name in constants]
    signed = any(array.dtype == np.int8 and array.ndim > 1 for array in weights)
    if signed and node.domain == "com.microsoft" and node.op_type in UNKNOWN:
        problem = f"`{node.name}` is {node.op_type}, of which it is not known what it answers on another CPU"
        raise UnknownError(problem, fix="Leave its layer in fp32, or measure on that CPU")
