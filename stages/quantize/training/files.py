"""Quantized weights and values as ONNX writes them: QuantizeLinear and DequantizeLinear around integers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from stages.quantize.training.forward.calls import INPUT, TABLES
from stages.quantize.training.forward.placement import Call, Plan
from stages.quantize.training.forward.running import Numbers
from stages.quantize.training.numbers.quantizers import Integers


class Constants(nn.Identity):  # an nn.Sequential runs it, as the last of its parts
    """The integers and scales of a quantized module; its `Numbers` while it is traced for ONNX.

    Args:
        module: a copy, whose layers get them as buffers, so that these are called after the layers.
        plan: of the module.
        integers: of the weights, by name.
        scales: step and zero point of each quantizer of activations.
        biases: by the number of the call, rounded.
    """

    module: nn.Module

    def __init__(
        self,
        module: nn.Module,
        plan: Plan,
        integers: Mapping[str, Integers],
        scales: Sequence[tuple[Tensor, Tensor]],
        biases: Mapping[int, Tensor],
    ) -> None:
        super().__init__()
        self.__dict__["module"] = module  # it has this one as a part
        self.plan, self.axes = plan, {name: integer.axis for name, integer in integers.items()}
        # A product of more than two axes is written as MatMul, which reads its weight as (inputs, outputs).
        tables = {name for call in plan.calls if call.name in TABLES for name in call.weights}
        self.turned = {c.weights[0] for c in plan.calls if c.name == "linear" and c.rank != 2}
        self.flat = {c.weights[0] for c in plan.calls if c.name in ("matmul", "mm", "addmm") and c.rank == 2}
        for name, (codes, step, axis) in integers.items():
            moved = name in (self.turned | self.flat) - tables
            self.axes[name] = 1 - axis if moved else axis
            self._keep(name, "codes", codes.t().contiguous() if moved else codes)
            self._keep(name, "scale", step)
            self._keep(name, "zero_point", torch.zeros_like(step, dtype=torch.int8))
        for number, (step, zero_point) in enumerate(scales):
            self.register_buffer(f"scale_{number}", step.detach().clone())
            self.register_buffer(f"zero_point_{number}", zero_point)
        for number, bias in biases.items():
            self._keep(str(plan.calls[number].bias), f"of_{number}", bias)

    def numbers(self) -> Numbers:
        """What quantized values are: what is written where there is an export, and for shapes elsewhere."""
        return self

    def weight(self, name: str, weight: Tensor) -> Tensor:
        """A weight, by its integers; the call may read them otherwise."""
        weight._named = name  # type: ignore[attr-defined]
        return weight

    def activation(self, number: int, value: Tensor) -> Tensor:
        """A value that becomes 8 bits and comes back."""
        scale, zero_point = self.get_buffer(f"scale_{number}"), self.get_buffer(f"zero_point_{number}")
        inputs = (value, scale, zero_point)
        codes = symbolic("QuantizeLinear", inputs, zero_point.dtype, value.shape)
        return symbolic("DequantizeLinear", (codes, scale, zero_point), scale.dtype, value.shape)

    def call(self, number: int, call: Call, function: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """The call, written so that ONNX Runtime takes it for its kernels."""
        if call.name in TABLES:
            return self._rows(call.weights[0], function, args, named)
        if call.name in ("linear", "matmul", "mm", "addmm"):
            return self._product(number, call, args, named)
        if call.bias is not None:
            args = (*args[:2], self._kept(call.bias, f"of_{number}"), *args[3:])
        return function(*_dequantized(args, self.dequantized), **named)

    def dequantized(self, name: str, *, zero_point: bool = False) -> Tensor:
        """A whole weight as floats."""
        kinds = ("codes", "scale", "zero_point") if zero_point else ("codes", "scale")
        inputs = tuple(self._kept(name, kind) for kind in kinds)
        return symbolic("DequantizeLinear", inputs, inputs[1].dtype, inputs[0].shape, axis=self.axes[name])

    def _product(self, number: int, call: Call, args: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
        """Gemm, whose weight needs a zero point, or MatMul; a bias that stays in floats is added behind it."""
        x, name = args[INPUT[call.name]], call.weights[0]
        is_flat = x.dim() == 2
        weight = self.dequantized(name, zero_point=is_flat)
        if (self.axes[name] == 0) != is_flat:  # another call reads it the other way
            weight = weight.t()
        if call.bias is not None:
            return nn.functional.linear(x, weight, self._kept(call.bias, f"of_{number}"))
        product = nn.functional.linear(x, weight) if is_flat else torch.matmul(x, weight)
        bias = args[0] if call.name == "addmm" else args[2] if len(args) > 2 else named.get("bias")
        if call.name == "addmm" and named:
            product, bias = product * named.get("alpha", 1), args[0] * named.get("beta", 1)
        return product if bias is None else product + bias

    def _rows(self, name: str, function: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
        """Rows of a table, taken as integers."""
        codes, scale = self._kept(name, "codes"), self._kept(name, "scale")
        if function.__name__ != "embedding":
            result: Tensor = function(*_dequantized(args, self.dequantized), **named)
            return result
        rows = torch.embedding(codes, args[0])
        if self.axes[name] == 1:
            return symbolic("DequantizeLinear", (rows, scale), scale.dtype, rows.shape, axis=rows.dim() - 1)
        return rows.to(scale.dtype) * torch.embedding(scale[:, None], args[0])

    def _keep(self, weight: str, kind: str, tensor: Tensor) -> None:
        layer, _, name = weight.rpartition(".")
        self.module.get_submodule(layer).register_buffer(f"{name}_{kind}", tensor.detach().clone())

    def _kept(self, weight: str, kind: str) -> Tensor:
        buffer: Tensor = self.module.get_buffer(f"{weight}_{kind}")
        return buffer


def symbolic(operator: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, shape: Any, **attributes: Any) -> Tensor:
    """A node of ONNX, which gives zeros in torch."""
    return torch.onnx.ops.symbolic(operator, inputs, attributes, dtype=dtype, shape=shape, version=None)


def _dequantized(args: tuple[Any, ...], weight: Callable[[str], Tensor]) -> tuple[Any, ...]:
    """The arguments with dequantized weights."""

    def read(argument: Any) -> Any:
        name = getattr(argument, "_named", None)
        return argument if name is None else weight(name)

    return tuple(tree_map(read, list(args)))
