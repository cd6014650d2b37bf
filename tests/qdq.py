"""Small ONNX files with QuantizeLinear and DequantizeLinear, as quantizers write them, good and bad."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.model import OnnxModel

IMAGE, TOKENS = (1, 3, 16, 16), (1, 16, 64)


class Builder:
    """A graph that grows node by node; each method gives the name of the value that it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.rng = np.random.default_rng(0)

    def op(self, operator: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> str:
        name = f"{operator}_{len(self.nodes)}"
        names = [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, domain=domain, **attributes))
        return names[0]

    def constant(self, value: Any) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def floats(self, *shape: int, kind: Any = np.float32) -> str:
        return self.constant((0.1 * self.rng.standard_normal(shape)).astype(kind))

    def qdq(self, value: str, kind: Any = np.uint8, zero: int | None = None, scale: float = 0.02) -> str:
        """The value in integers and back again; zero is the middle of the range unless given."""
        signed = np.issubdtype(kind, np.signedinteger)
        middle = 0 if signed else np.iinfo(kind).max // 2 + 1
        ends = self.constant(np.float32(scale)), self.constant(kind(middle if zero is None else zero))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", value, *ends), *ends)

    def weight(self, *shape: int, axis: int | None = 0, kind: Any = np.int8) -> str:
        """A dequantized weight, with a scale for each entry of the axis, or one alone where that is None."""
        integers = self.rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape).astype(kind)
        middle = 0 if kind == np.int8 else 128
        scales = np.float32(0.002) if axis is None else np.linspace(0.001, 0.002, shape[axis], dtype=np.float32)
        zeros = kind(middle) if axis is None else np.full(shape[axis], middle, kind)
        along = {} if axis is None else {"axis": axis}
        parts = self.constant(integers), self.constant(scales), self.constant(zeros)
        return self.op("DequantizeLinear", *parts, **along)

    def conv(self, value: str, inputs: int, outputs: int, axis: int = 0, **attributes: Any) -> str:
        """A convolution with a weight of int8."""
        weight = self.weight(outputs, inputs // attributes.get("group", 1), 3, 3, axis=axis)
        return self.op("Conv", value, weight, pads=[1] * 4, **attributes)

    def product(self, value: str, inputs: int = 64, outputs: int = 64, axis: int = 1) -> str:
        """A MatMul with a weight of int8."""
        return self.op("MatMul", value, self.weight(inputs, outputs, axis=axis))

    def model(self, folder: Path, output: str, shape: tuple[int, ...], name: str = "net") -> OnnxModel:
        """The file, and an input drawn for it."""
        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "g", ends, outputs, self.weights)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / f"{name}.onnx")
        return OnnxModel(folder / f"{name}.onnx", {"x": torch.rand(shape, generator=torch.Generator().manual_seed(0))})
