"""Values of each training example, such as a teacher's logits: computed once, memory-mapped ever after."""

import json
from collections.abc import Callable, Sequence
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.batches import NEARBY, Inputs
from pipeline.context import Context
from pipeline.errors import Interruption

BATCH_SIZE = 128  # larger ones leave the caches of a CPU
WAITING = 2**26  # bytes of values at most that wait in memory for those before them

Values = dict[str, Tensor]


def fill(
    folder: Path,
    ctx: Context,
    compute: Callable[[Inputs], Values],
    views: int | None,
    what: str = "the teacher's logits",
    row_bytes: int = 0,
) -> None:
    """Write what `compute` gives for each training example, in the order of the examples, one view after the other.

    Memory stays flat: a batch is written before the next is computed.

    Args:
        folder: gets for each value and view a raw file with the numbers and one with the shapes of the examples.
        ctx: the data.
        compute: a batch's inputs -> values by name, (B, ...) each.
        views: how many augmentations; None for the examples as they are.
        what: what is computed, for progress and messages.
        row_bytes: what the values of an example take, where that is known: examples of about one length are then
            computed together, and wait in memory for their turn to be written.
    """
    similar = bool(row_bytes) and row_bytes * NEARBY * BATCH_SIZE <= WAITING
    writer = _Writer(folder)
    with ctx.progress(what, len(ctx.train) * (views or 1)) as advance:
        for view in range(views or 1):
            augment = ctx.augment if views else None
            loader = ctx.train.loader(BATCH_SIZE, seed=ctx.seed, view=view, augment=augment, similar=similar)
            for batch in loader:
                if ctx.interrupted():
                    raise Interruption(f"stopped while computing {what}")
                writer.add(view, batch.index.tolist(), compute(batch.inputs))
                advance(len(batch.index))
    (folder / "values.json").write_text(json.dumps({"types": writer.types, "views": views or 1}))


class _Writer:
    """Appends the values of examples in the order of their positions, whatever the order in which they come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.types: dict[str, str] = {}
        self.waiting: dict[tuple[int, int], dict[str, Any]] = {}
        self.written: dict[int, int] = {}

    def add(self, view: int, positions: list[int], values: Values) -> None:
        """Values (B, ...) of the examples at these positions; those before which none is missing are written."""
        arrays = {name: value.cpu().numpy() for name, value in values.items()}
        self.types |= {name: str(array.dtype) for name, array in arrays.items()}
        for row, position in enumerate(positions):
            self.waiting[view, position] = {name: array[row] for name, array in arrays.items()}
        rows, start = list[dict[str, Any]](), self.written.get(view, 0)
        while (next_row := self.waiting.pop((view, start + len(rows)), None)) is not None:
            rows.append(next_row)
        self.written[view] = start + len(rows)
        for name in arrays if rows else ():
            _append(self.folder / f"{name}-{view}.bin", [row[name] for row in rows])
            shapes = [np.array(row[name].shape, dtype=np.int32) for row in rows]
            _append(self.folder / f"{name}-{view}.shapes", shapes)


class CachedValues:
    """What `fill` wrote, read an example at a time from the disk's cache."""

    def __init__(self, folder: Path, examples: int) -> None:
        header = json.loads((folder / "values.json").read_text())
        self.values = {
            (name, view): _Rows(folder / f"{name}-{view}.bin", dtype, examples)
            for name, dtype in header["types"].items()
            for view in range(header["views"])
        }
        self.names = list(header["types"])
        self.ragged = not all(rows.same for rows in self.values.values())
        self.flat = all(rows.shapes.shape[1] == 1 for rows in self.values.values())

    def __call__(self, index: Tensor, view: int) -> Values:
        """The values of these examples, (B, ...) each; where their shapes differ, zeros fill up to the largest."""
        positions = index.cpu().numpy()
        return {name: self.values[name, view].take(positions) for name in self.names}


class _Rows:
    """One array an example, all of one shape or of several."""

    def __init__(self, path: Path, dtype: str, examples: int) -> None:
        shapes = np.fromfile(path.with_suffix(".shapes"), dtype=np.int32).reshape(examples, -1)
        self.flat = np.memmap(path, dtype=dtype, mode="r")
        self.same = bool((shapes == shapes[0]).all())
        self.shapes, self.ends = shapes, np.cumsum(shapes.astype(np.int64).prod(axis=1))
        self.rows: Any = self.flat.reshape(examples, *shapes[0]) if self.same else None

    def take(self, positions: Any) -> Tensor:
        if self.same:
            return torch.from_numpy(np.ascontiguousarray(self.rows[positions]))
        largest = self.shapes[positions].max(axis=0)
        batch = np.zeros((len(positions), *largest), dtype=self.flat.dtype)
        for row, position in zip(batch, positions, strict=True):
            shape = tuple(self.shapes[position])
            end = self.ends[position]
            row[tuple(slice(size) for size in shape)] = self.flat[end - prod(shape) : end].reshape(shape)
        return torch.from_numpy(batch)


def fitted(values: Tensor, places: Sequence[int], class_axis: int | None = None) -> Tensor:
    """Values (B, ...) with their axes cut or filled up with zeros to `places`: lengths of another padding.

    Args:
        values: the cached ones of a batch.
        places: the shape to give, without the classes; its first axis, of examples, is that of the values.
        class_axis: where the classes are; they stay, for there a difference is an error. None where there are none.
    """
    axes = [i for i in range(values.ndim) if class_axis is None or i != class_axis % values.ndim]
    sizes = dict(list(zip(axes, places, strict=True))[1:])
    missing = [(0, sizes.get(i, size) - size) for i, size in enumerate(values.shape)]
    return F.pad(values, [*chain.from_iterable(reversed(missing))])  # where there are too many, it cuts


def _append(path: Path, arrays: Sequence[Any]) -> None:
    with path.open("ab") as file:
        for array in arrays:
            np.ascontiguousarray(array).tofile(file)
