"""CIFAR-10: 32x32 colour images, ten classes, read with Hugging Face `datasets`."""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs
from pipeline.errors import ConfigError
from pipeline.task import Split, Task, classification, split_by_seed
from pipeline.tasks import tables

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the published ResNets were trained with
SHIFT = 4  # pixels, the most that an image is moved by
SIDE = 32  # pixels, of an image


def task(
    path: str = "uoft-cs/cifar10",
    limit: int | None = None,
    validation: float = 0.1,
    augment: bool = False,
    erase: int = 0,
    paste: int = 0,
) -> Task:
    """Single-label classification of images, from `input` (3, 32, 32), colours scaled and normalized.

    Args:
        path: a name on the Hugging Face hub, or a folder of parquet files, with a train and a test part and the columns
            `image` or `img`, and `label`.
        limit: examples read of each part at most, for small runs.
        validation: share of the 50,000 images of train that is held out.
        augment: train on images that are moved and mirrored, another way in each epoch.
        erase: with `augment`, side in pixels of a square that is made grey in half of the images; 0 for none.
        paste: with `augment`, side in pixels of a square that shows another image of train in half of the images.

    Raises:
        ConfigError: there is no such data, or it has other columns; a number is out of range.
    """
    _expect(validation, 0 < validation < 1, "validation", "more than 0 and less than 1")
    for name, side in {"erase": erase, "paste": paste}.items():
        _expect(side, 0 <= side <= SIDE, name, f"0 to {SIDE} pixels")
        _expect(side, augment or not side, name, "0 without `augment`")
    parts = tables.parts(path, ("train", "test"))
    train, held_out = split_by_seed(_split(parts["train"], limit, path), [1 - validation, validation])
    return classification(
        train,
        held_out,
        _split(parts["test"], limit, path),
        augment=partial(varied, erase=erase, paste=paste, others=train.dataset) if augment else None,
        labels=LABELS,
        preprocessing=f"RGB pixels / 255, minus {list(MEAN)}, divided by {list(STD)}, as (3, 32, 32)",
        show=shown,
    )


def varied(
    inputs: Inputs, seed: int, view: int, erase: int = 0, paste: int = 0, others: Sequence[Any] | None = None
) -> Inputs:
    """The image moved by up to four pixels each way, what comes in being grey, and in half of the cases mirrored.

    Args:
        inputs: one example's.
        seed: the example's own.
        view: every view is another.
        erase: side of a square, anywhere, that is made grey in half of the cases.
        paste: side of a square, anywhere, that shows what one of the others has there in half of the cases.
        others: the examples to paste from.

    References: DeVries and Taylor: Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
    arXiv:1708.04552; Yun et al.: CutMix, 2019, arXiv:1905.04899, here with squares too small for another answer.
    """
    image = inputs["input"]
    height, width = image.shape[-2:]
    draw = random.Random(seed * 1_000_003 + view)
    top, left, mirrored = draw.randint(0, 2 * SHIFT), draw.randint(0, 2 * SHIFT), draw.random() < 0.5
    moved = F.pad(image, (SHIFT,) * 4)[..., top : top + height, left : left + width]
    moved = moved.flip(-1) if mirrored else moved
    if erase and draw.random() < 0.5:
        moved = _with_square(moved, erase, torch.zeros_like(moved), draw)
    if paste and others is not None and draw.random() < 0.5:
        moved = _with_square(moved, paste, others[draw.randrange(len(others))][0], draw)
    return {"input": moved}


def _with_square(image: Tensor, side: int, source: Tensor, draw: random.Random) -> Tensor:
    """The image with a square, anywhere, of another."""
    height, width = image.shape[-2:]
    top, left = draw.randint(0, height - side), draw.randint(0, width - side)
    square = (..., slice(top, top + side), slice(left, left + side))
    image = image.clone()
    image[square] = source[square]
    return image


def shown(inputs: Inputs) -> Tensor:
    """The image (3, 32, 32) in 0 to 1."""
    return (inputs["input"] * _by_channel(STD) + _by_channel(MEAN)).clamp(0, 1)


def _expect(value: float, holds: bool, name: str, expected: str) -> None:
    if not holds:
        raise ConfigError(f"`{name}` is {value}", where="task", expected=expected)


def _by_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _split(rows: Any, limit: int | None, path: str) -> Split:
    """All images as one tensor (N, 3, 32, 32) and the labels (N,), so that a batch is one indexing."""
    image = next((name for name in ("image", "img") if name in rows.column_names), None)
    if image is None or "label" not in rows.column_names:
        found = f"{path} has the columns {', '.join(rows.column_names)}"
        raise ConfigError(found, where="task", expected="`image` or `img`, and `label`")
    rows = tables.rows(rows, (image, "label"), path, limit)
    pixels = torch.from_numpy(np.stack([np.asarray(one.convert("RGB")) for one in rows[image]]))
    scaled = (pixels.permute(0, 3, 1, 2).float() / 255 - _by_channel(MEAN)) / _by_channel(STD)
    return Split(TensorDataset(scaled.contiguous(), torch.tensor(rows["label"][:], dtype=torch.int64)))
