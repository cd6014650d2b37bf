"""ONNX's operators in torch: what stands for a node, by its type. Each takes a `Call` and gives a tensor, or more."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from stages.benchmark.runners.edge.imported import products, quantizers, shapes
from stages.benchmark.runners.edge.imported.calls import Call


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Call], Tensor]:
    return lambda call: function(call[0])


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Call], Tensor]:
    return lambda call: reduce(function, [call[place] for place in range(len(call))])


def _clip(call: Call) -> Tensor:
    low, high = call.number(1, "min"), call.number(2, "max")
    if low == 0 and high is None:
        return functional.relu(call[0])
    if low is None or high is None:
        return torch.clamp(call[0], low, high)
    return functional.hardtanh(call[0], low, high)


def _cast(call: Call) -> Tensor:
    kind = onnx.helper.tensor_dtype_to_np_dtype(call.attributes["to"])
    return call[0].to(getattr(torch, kind.name))


def _pool(kind: str) -> Callable[[Call], Tensor]:
    def pool(call: Call) -> Tensor:
        read = call.attributes.get
        kernel = list(call.attributes["kernel_shape"])
        pads = list(read("pads", [0] * 2 * len(kernel)))
        strides, half = list(read("strides", [1] * len(kernel))), len(kernel)
        if read("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or pads[:half] != pads[half:]:
            raise SystemExit(f"it is given no form of a {call.node.op_type} with uneven pads")
        if kind == "max":
            run = getattr(functional, f"max_pool{half}d")
            value: Tensor = run(
                call[0], kernel, strides, pads[:half], list(read("dilations", [1] * half)), bool(read("ceil_mode", 0))
            )
            return value
        run = getattr(functional, f"avg_pool{half}d")
        average: Tensor = run(
            call[0], kernel, strides, pads[:half], bool(read("ceil_mode", 0)), bool(read("count_include_pad", 0))
        )
        return average

    return pool


def _reduce(function: Callable[..., Tensor]) -> Callable[[Call], Tensor]:
    def run(call: Call) -> Tensor:
        axes = call.integers(1, "axes") or [*range(call[0].dim())]
        return function(call[0], axes, keepdim=bool(call.attributes.get("keepdims", 1)))

    return run


def _mean(value: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
    """With the axes kept, as XNNPACK has it, and then dropped."""
    mean = value.mean(axes, keepdim=True)
    return mean if keepdim else mean.squeeze(tuple(axes))


def _layer_norm(call: Call) -> Tensor:
    axis = call.attributes.get("axis", -1) % call[0].dim()
    return functional.layer_norm(
        call[0], call[0].shape[axis:], call[1], call.get(2), call.attributes.get("epsilon", 1e-5)
    )


def _batch_norm(call: Call) -> Tensor:
    epsilon = call.attributes.get("epsilon", 1e-5)
    return functional.batch_norm(call[0], call[3], call[4], call[1], call[2], False, 0.0, epsilon)


OPERATORS: dict[str, Callable[[Call], Any]] = {
    "QuantizeLinear": quantizers.quantize,
    "DequantizeLinear": quantizers.dequantize,
    "DynamicQuantizeLinear": quantizers.dynamic,
    "MatMulInteger": products.integer_matmul,
    "Conv": products.convolution,
    "Gemm": products.gemm,
    "MatMul": products.matmul,
    "Add": _fold(torch.add),
    "Sub": _fold(torch.sub),
    "Mul": _fold(torch.mul),
    "Div": _fold(torch.div),
    "Pow": _fold(torch.pow),
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Equal": _fold(torch.eq),
    "Greater": _fold(torch.gt),
    "Less": _fold(torch.lt),
    "And": _fold(torch.logical_and),
    "Or": _fold(torch.logical_or),
    "Where": lambda call: torch.where(call[0], call[1], call[2]),
    "Not": _unary(torch.logical_not),
    "Relu": _unary(functional.relu),
    "Clip": _clip,
    "LeakyRelu": lambda call: functional.leaky_relu(call[0], call.attributes.get("alpha", 0.01)),
    "Sigmoid": _unary(torch.sigmoid),
    "HardSwish": _unary(functional.hardswish),
    "Tanh": _unary(torch.tanh),
    "Gelu": lambda call: functional.gelu(call[0], approximate=call.attributes.get("approximate", b"none").decode()),
    "Erf": _unary(torch.erf),
    "Sqrt": _unary(torch.sqrt),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Neg": _unary(torch.neg),
    "Abs": _unary(torch.abs),
    "Reciprocal": _unary(torch.reciprocal),
    "Softmax": lambda call: call[0].softmax(call.attributes.get("axis", -1)),
    "LogSoftmax": lambda call: call[0].log_softmax(call.attributes.get("axis", -1)),
    "Cast": _cast,
    "Identity": _unary(lambda value: value),
    "Dropout": _unary(lambda value: value),
    "Reshape": shapes.reshape,
    "Flatten": shapes.flatten,
    "Transpose": lambda call: call[0].permute(call.attributes.get("perm", [*range(call[0].dim())][::-1])),
    "Squeeze": shapes.squeeze,
    "Unsqueeze": shapes.unsqueeze,
    "Concat": lambda call: torch.cat([call[place] for place in range(len(call))], call.attributes["axis"]),
    "Slice": shapes.sliced,
    "Split": shapes.split,
    "Gather": shapes.gather,
    "Expand": lambda call: call[0].expand(tuple(np.broadcast_shapes(tuple(call[0].shape), call.integers(1)))),
    "Pad": shapes.pad,
    "MaxPool": _pool("max"),
    "AveragePool": _pool("average"),
    "GlobalAveragePool": lambda call: call[0].mean([*range(2, call[0].dim())], keepdim=True),
    "ReduceMean": _reduce(_mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
}
"""By the type of a node."""
