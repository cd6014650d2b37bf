"""The nodes that stand for a product: exact sums, what saturation takes off, and what ONNX Runtime makes of them."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from pipeline.measure.isa.errors import UnknownError
from pipeline.measure.isa.graphs.columns import as_rows, rows
from pipeline.measure.isa.graphs.correction import corrected
from pipeline.measure.isa.graphs.products import Constants, Product
from pipeline.measure.isa.graphs.writer import Writer


class StandIn:
    """What the node of a product reads, and the nodes that stand for it.

    Args:
        product: of the graph.
        constants: of the graph, by name.
        writer: adds the nodes.
    """

    def __init__(self, product: Product, constants: Constants, writer: Writer) -> None:
        self.product, self.node, self.constants, self.writer = product, product.node, constants, writer
        read: dict[str, Any] = {a.name: onnx.helper.get_attribute_value(a) for a in self.node.attribute}
        self.read = read
        self.value, self.scale, self.zero_point = self.node.input[0], "", self._input(2)
        if self.node.op_type == "DynamicQuantizeMatMul":
            self.value, self.scale, self.zero_point = writer.quantized(self.value)
        elif self.node.op_type == "MatMulIntegerToFloat":
            self.scale, self.zero_point = self._input(2), self._input(4)
        if read.get("transA"):
            self.value = writer.add("Transpose", self.value, perm=[1, 0])

    def exact(self) -> str:
        """The sums in 32 bits, with zero points taken off."""
        weight, zero = self.product.weight, self._weight_zero()
        if self.product.window:
            kept = [a for a in self.node.attribute if a.name not in ("channels_last", "auto_pad")]
            inputs = self.value, self.writer.constant(weight), self.zero_point, self.writer.constant(zero)
            name = self.writer.add("ConvInteger", *inputs)
            self.writer.nodes[-1].attribute.extend(kept)
            return name
        # Kernels for two unsigned integers add in 32 bits everywhere.
        unsigned = (weight.astype(np.int16) + 128).astype(np.uint8)
        zero = (zero.astype(np.int16) + 128).astype(np.uint8)
        inputs = self.value, self.writer.constant(unsigned), self.zero_point, self.writer.constant(zero)
        return self.writer.add("MatMulInteger", *inputs)

    def correction(self, exact: str) -> tuple[str, list[str]]:
        """What pairs that saturate take off the sums, in their shape."""
        product, writer = self.product, self.writer
        if product.window:
            padding = self._constant(self.zero_point).reshape(())
            channels = product.weight.shape[1] * product.window.groups
            columns = product.window.write(writer, self.value, channels, writer.constant(padding))
            flat, counts = corrected(writer, columns, product.pairs, product.outputs)
            return writer.add("Reshape", flat, writer.add("Shape", exact)), counts
        columns = rows(writer, self.value, len(product.weight))
        flat, counts = corrected(writer, columns, product.pairs, product.outputs)
        return as_rows(writer, flat, product.outputs, exact), counts

    def finish(self, sums: str) -> None:
        """What the node makes of the sums, by its own name."""
        operator = self.node.op_type
        if operator == "MatMulInteger":
            self.writer.add("Identity", sums, output=self.node.output[0])
        elif operator in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul"):
            self._to_float(sums)
        else:
            self._to_integers(sums)

    def _to_float(self, sums: str) -> None:
        weights, bias = (2, 4) if self.node.op_type == "DynamicQuantizeMatMul" else (3, 6)
        scale = self.writer.add("Mul", self.scale, self._input(weights))
        value = self.writer.add("Mul", self.writer.cast(sums, TensorProto.FLOAT), scale)
        if self._input(bias):
            self.writer.add("Add", value, self._input(bias), output=self.node.output[0])
        else:
            self.writer.add("Identity", value, output=self.node.output[0])

    def _to_integers(self, sums: str) -> None:
        """Of QLinearConv, QLinearMatMul and QGemm, the latter in floats where it has no scale for its output."""
        is_gemm, is_conv = self.node.op_type == "QGemm", self.product.window is not None
        place = 7 if is_gemm else 6
        rank = self.product.weight.ndim - 2 if self.product.window else 0
        bias = self._input(6 if is_gemm else 8)
        if bias:
            shaped = self._constant(bias)
            shaped = shaped.reshape(-1, *[1] * rank) if is_conv else shaped
            sums = self.writer.add("Add", sums, self.writer.constant(shaped))
        scale = self._constant(self._input(1)).reshape(-1)
        if is_gemm:
            scale = np.float32(self.read.get("alpha", 1.0)) * scale
        scale = scale * self._constant(self._input(4)).reshape(-1)
        if self._input(place):
            scale = scale / self._constant(self._input(place)).reshape(-1)
        scale = scale.astype(np.float32).reshape(-1, *[1] * rank)
        value = self.writer.cast(sums, TensorProto.FLOAT)
        if not self._input(place):
            self.writer.add("Mul", value, self.writer.constant(scale), output=self.node.output[0])
            return
        value = self.writer.add("Mul", value, self.writer.constant(scale))
        zero = self._constant(self._input(place + 1)).reshape(())
        ends = self.writer.constant(np.array(1, np.float32)), self.writer.constant(zero)
        self.writer.add("QuantizeLinear", value, *ends, output=self.node.output[0])

    def _weight_zero(self) -> NDArray[np.int8]:
        """The zero point of the weight: one, or one a column of a matrix."""
        places = {"MatMulInteger": 3, "MatMulIntegerToFloat": 5, "DynamicQuantizeMatMul": 3}
        name = self._input(places.get(self.node.op_type, 5))
        zero = self._constant(name) if name else np.zeros((), np.int8)
        return zero.reshape(-1)[:1].reshape(()) if self.product.window or zero.size == 1 else zero

    def _input(self, place: int) -> str:
        return str(self.node.input[place]) if place < len(self.node.input) else ""

    def _constant(self, name: str) -> NDArray[Any]:
        if name not in self.constants:
            problem = f"`{self.product.name}` ({self.node.op_type}) has a scale or zero point that is not constant"
            raise UnknownError(problem)
        return self.constants[name]
