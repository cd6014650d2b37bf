"""Values that become 8 bits and come back, in the operators that backends of torch.export look for."""

from typing import Any

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # it defines the operators
from torch import Tensor

LEAST, MOST = -128, 127
SMALLEST = float(np.finfo(np.float32).eps)


def signed(codes: Any, zero_point: Any) -> tuple[Any, Any]:
    """Unsigned integers moved to signed ones, with a zero point that is moved as far: the same values."""
    if codes.dtype == np.uint8:
        return (codes.astype(np.int16) - 128).astype(np.int8), zero_point.astype(np.int16) - 128
    return codes, zero_point.astype(np.int16)


def moved(codes: Tensor) -> Tensor:
    """Integers of a value that nothing moved yet, as signed ones."""
    return (codes.to(torch.int16) - 128).to(torch.int8) if codes.dtype == torch.uint8 else codes


def rounded(value: Tensor, scale: float, zero_point: int) -> Tensor:
    """A value in int8."""
    result: Tensor = torch.ops.quantized_decomposed.quantize_per_tensor.default(
        value, scale, zero_point, LEAST, MOST, torch.int8
    )
    return result


def dequantized(codes: Tensor, scale: float, zero_point: int) -> Tensor:
    """A value of int8 in floats."""
    result: Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor.default(
        codes, scale, zero_point, LEAST, MOST, torch.int8
    )
    return result


def dequantized_by_channel(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """A weight of int8 in floats."""
    result: Tensor = torch.ops.quantized_decomposed.dequantize_per_channel.default(
        codes, scale, zero_point, axis, LEAST, MOST, torch.int8
    )
    return result


def rounded_by_channel(weight: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """A weight in int8."""
    result: Tensor = torch.ops.quantized_decomposed.quantize_per_channel.default(
        weight, scale, zero_point, axis, LEAST, MOST, torch.int8
    )
    return result


def rounded_by_range(value: Tensor) -> Tensor:
    """A value that becomes 8 bits by the range that it has at the time, and comes back."""
    operators = torch.ops.quantized_decomposed
    scale, zero_point = operators.choose_qparams.tensor(value, LEAST, MOST, SMALLEST, torch.int8)
    codes = operators.quantize_per_tensor.tensor(value, scale, zero_point, LEAST, MOST, torch.int8)
    result: Tensor = operators.dequantize_per_tensor.tensor(codes, scale, zero_point, LEAST, MOST, torch.int8)
    return result
