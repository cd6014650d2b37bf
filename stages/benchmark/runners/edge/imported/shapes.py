"""Operators that give values of their input in other places."""

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from stages.benchmark.runners.edge.imported.calls import Call


def reshape(call: Call) -> Tensor:
    """Another shape; 0 keeps a size."""
    sizes = call.integers(1)
    return call[0].reshape([call[0].shape[i] if size == 0 else size for i, size in enumerate(sizes)])


def flatten(call: Call) -> Tensor:
    """A matrix."""
    axis = call.attributes.get("axis", 1)
    return call[0].flatten(axis) if axis == 1 else call[0].reshape(call[0].shape[:axis].numel(), -1)


def squeeze(call: Call) -> Tensor:
    """Without axes of one."""
    axes = call.integers(1, "axes")
    return call[0].squeeze(tuple(axes)) if axes else call[0].squeeze()


def unsqueeze(call: Call) -> Tensor:
    """With more axes of one."""
    axes, rank = call.integers(1, "axes"), call[0].dim()
    places = sorted(axis % (rank + len(axes)) for axis in axes)
    return reduce(lambda value, place: value.unsqueeze(place), places, call[0])


def sliced(call: Call) -> Tensor:
    """A part along axes."""
    starts, ends = call.integers(1, "starts"), call.integers(2, "ends")
    axes = call.integers(3, "axes") or [*range(len(starts))]
    steps = call.integers(4) or [1] * len(starts)
    value = call[0]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        length = value.shape[axis]
        places = [*range(length)[slice(start, end, step)]]
        if step < 0:
            value = value.index_select(axis, torch.tensor(places))
        else:
            value = value[(slice(None),) * (axis % value.dim()) + (slice(start, min(end, length), step),)]
    return value


def split(call: Call) -> tuple[Tensor, ...]:
    """Parts along an axis."""
    axis, sizes = call.attributes.get("axis", 0), call.integers(1, "split")
    count = len(call.node.output)
    return torch.split(call[0], sizes or -(-call[0].shape[axis] // count), axis)


def gather(call: Call) -> Tensor:
    """Places along an axis."""
    value, axis = call.table(), call.attributes.get("axis", 0)
    places = call.constant(1) if call.is_constant(1) else None
    if places is not None and places.ndim == 0:
        return value.select(axis, int(places))
    if axis == 0 and value.dim() == 2 and places is None:
        return torch.embedding(value, call[1])
    chosen = value.index_select(axis, call[1].reshape(-1))
    axis %= value.dim()
    return chosen.reshape([*value.shape[:axis], *call[1].shape, *value.shape[axis + 1 :]])


def pad(call: Call) -> Tensor:
    """More of a constant at both ends."""
    if call.attributes.get("mode", b"constant") != b"constant":
        raise SystemExit("it is given no form of a Pad that is not constant")
    sizes = call.integers(1, "pads")
    rank = len(sizes) // 2
    pairs = [size for axis in reversed(range(rank)) for size in (sizes[axis], sizes[axis + rank])]
    return functional.pad(call[0], pairs, value=call.number(2, default=0.0))
