"""Convolutions and products with a weight: in integers where the file has the weight in integers.

Where the result becomes integers too, all has the scales of the file. Where it stays in floats, XNNPACK's kernel rounds
its input by the range that this has at the time, for it has none with a fixed scale; the weight keeps its integers.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.benchmark.runners.edge.imported import integers
from stages.benchmark.runners.edge.imported.calls import Call
from stages.benchmark.runners.edge.imported.weights import Weight


def convolution(call: Call) -> Tensor:
    """Conv of one, two or three axes."""
    read = call.attributes.get
    rank = call[0].dim() - 2
    value, weight = _read(call, 0), _weight(call, 1)
    pads = list(read("pads", [0] * 2 * rank))
    if read("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise SystemExit("it is given no form of a Conv with auto_pad")
    if pads[:rank] != pads[rank:]:
        pairs = [size for axis in reversed(range(rank)) for size in (pads[axis], pads[axis + rank])]
        value, pads = functional.pad(value, pairs), [0] * 2 * rank
    strides, dilations = (list(read(name, [1] * rank)) for name in ("strides", "dilations"))
    run = getattr(functional, f"conv{rank}d")
    result: Tensor = run(value, weight, call.get(2), strides, pads[:rank], dilations, read("group", 1))
    return result


def gemm(call: Call) -> Tensor:
    """Gemm, whose weight is constant or not."""
    read = call.attributes.get
    value = _read(call, 0)
    value = value.t() if read("transA", 0) else value
    bias = call.get(2)
    if read("alpha", 1.0) != 1 or (bias is not None and (read("beta", 1.0) != 1 or bias.dim() != 1)):
        product: Tensor = functional.linear(value, _weight(call, 1, turned=not read("transB", 0))) * read("alpha", 1.0)
        shifted: Tensor = product if bias is None else product + bias * read("beta", 1.0)
        return shifted
    return functional.linear(value, _weight(call, 1, turned=not read("transB", 0)), bias)


def matmul(call: Call) -> Tensor:
    """A product with a constant matrix, or of two values."""
    if call.rank(1) == 2 and (call.weight(1) or call.is_constant(1)):
        return functional.linear(_read(call, 0), _weight(call, 1, turned=True))
    return torch.matmul(call[0], call[1])


def integer_matmul(call: Call) -> Tensor:
    """MatMulInteger of a value that `quantizers.dynamic` gives, or of integers; scales are multiplied behind it."""
    if not call.is_constant(1) or call.rank(1) != 2:
        raise SystemExit("the file's MatMulInteger of two values has no form here. Leave this runtime out")
    codes = call.constant(1)
    zero_point = call.constant(3) if call.has(3) else np.zeros(1, codes.dtype)
    weight = Weight(codes, np.ones_like(zero_point, np.float32), zero_point, 1).turned.by_channel
    value = call[0]
    if not value.is_floating_point():  # rows of a table
        _, zero = integers.signed(call.constant(2), call.constant(2))
        value = integers.moved(value).to(torch.float32) - int(np.ravel(zero)[0])
    value = integers.rounded_by_range(value) if call.network.backend.ranges else value
    return functional.linear(value, call.network.floats(call.node.output[0], weight))


def _read(call: Call, place: int) -> Tensor:
    """The value that is multiplied."""
    network = call.network
    if network.backend.ranges and call.weight(1) and not network.becomes_integers(call.node.output[0]):
        return integers.rounded_by_range(call[place])
    value: Tensor = call[place]
    return value


def _weight(call: Call, place: int, *, turned: bool = False) -> Tensor:
    """The weight as (outputs, inputs, ...)."""
    name = call.node.input[place]
    weight = call.weight(place)
    if weight:
        weight = weight.turned if turned else weight
        own = weight if call.network.becomes_integers(call.node.output[0]) else weight.by_channel
        held: Tensor = call.network.floats(f"{name} of {call.node.output[0]}", own)
        return held
    if call.is_constant(place) and turned:
        turned_constant: Tensor = call.network.buffer(f"{name} turned", call.constant(place).T.copy())
        return turned_constant
    value: Tensor = call[place]
    return value.t() if turned else value
