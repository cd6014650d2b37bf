"""QuantizeLinear and DequantizeLinear, of values and of constants."""

import numpy as np
import torch
from torch import Tensor

from stages.benchmark.runners.edge.imported import integers
from stages.benchmark.runners.edge.imported.calls import Call
from stages.benchmark.runners.edge.imported.weights import Weight, along


def quantize(call: Call) -> Tensor:
    """A value in int8; what the file has in uint8 is moved by 128, with its zero point."""
    scale, zero_point = call.constant(1), call.constant(2) if call.has(2) else np.zeros((), np.uint8)
    if np.size(scale) != 1 or zero_point.dtype not in (np.int8, np.uint8):
        kind = "several scales" if np.size(scale) != 1 else str(zero_point.dtype)
        raise SystemExit(f"it is given no form of a value quantized to {kind}")
    if zero_point.dtype == np.uint8:
        call.network.unsigned.add(call.node.output[0])
    moved = 128 * (zero_point.dtype == np.uint8)
    return integers.rounded(call[0], float(np.ravel(scale)[0]), int(np.ravel(zero_point)[0]) - moved)


def dequantize(call: Call) -> Tensor | tuple[()]:
    """A value in floats; of a constant nothing: whoever reads it asks for it."""
    scale = call.constant(1)
    axis = call.attributes.get("axis", 1)
    if call.is_constant(0):
        codes = call.constant(0)
        zero_point = call.constant(2) if call.has(2) else np.zeros_like(scale, codes.dtype)
        weight = Weight(codes, scale, zero_point, axis % max(codes.ndim, 1))
        if codes.dtype in (np.int8, np.uint8):
            call.network.weights[call.node.output[0]] = weight
        else:  # a bias of 32 bits
            call.network.constants[call.node.output[0]] = weight.floats
        return ()
    codes = integers.moved(call[0])
    is_unsigned = call[0].dtype == torch.uint8 or call.node.input[0] in call.network.unsigned
    zero_point = call.constant(2) if call.has(2) else np.zeros_like(scale, np.uint8 if is_unsigned else np.int8)
    _, moved = integers.signed(zero_point, zero_point)
    name, axis = call.node.output[0], axis % max(codes.dim(), 1)
    if not call.network.backend.holds_integers and not call.network.is_rounded(call.node.input[0]):
        step, zero = (along(np.float32(one), axis, codes.dim()) for one in (scale, moved))
        zeros, steps = call.network.buffer(f"{name}_zero", zero), call.network.buffer(f"{name}_step", step)
        return torch.mul(codes.to(torch.float32) - zeros, steps)
    if np.size(scale) == 1:
        return integers.dequantized(codes, float(np.ravel(scale)[0]), int(np.ravel(moved)[0]))
    steps = call.network.buffer(f"{name}_scale", scale.astype(np.float32))
    zeros = call.network.buffer(f"{name}_zeros", np.broadcast_to(moved, scale.shape).astype(np.int64))
    return integers.dequantized_by_channel(codes, steps, zeros, axis)


def dynamic(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """DynamicQuantizeLinear: the value as it is, which `products.integer_matmul` rounds, with a scale of one."""
    name = call.node.output[1]
    one, zero = (call.network.buffer(f"{name} {value}", np.float32(value)) for value in (1, 0))
    return call[0], one, zero
