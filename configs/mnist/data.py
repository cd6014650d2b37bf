"""MNIST: 28x28 grey handwritten digits, ten classes, read with Hugging Face `datasets`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs
from pipeline.task import Split, Task, classification, split_by_seed
from pipeline.tasks import tables

VALIDATION = 1 / 12  # of the 60,000 of train: 5,000
TEST = 1 / 6  # of train, where there is no test part
SIDE, KNOTS = 28, 4  # pixels; points of the bending, each way
SLANT, SHIFT, BEND = 0.1, 0.08, 0.05  # standard deviations, as shares of half the width


def task(path: str = "ylecun/mnist", limit: int | None = None, augment: bool = False) -> Task:
    """Single-label classification of digits, from `input` (1, 28, 28) in 0 to 1.

    Args:
        path: a name on the Hugging Face hub, or a folder of parquet files, with the columns `image` and `label`. Its
            test part, the official 10,000 images, is the test split; where it has none, a sixth of train is.
        limit: examples read of each part at most, for small runs.
        augment: train on images that are turned, scaled, moved and bent, another way in each epoch.

    Raises:
        ConfigError: there is no such data, or it has other columns.
    """
    parts = tables.parts(path)
    whole = _split(parts["train"], limit, path)
    if "test" in parts:
        test = _split(parts["test"], limit, path)
        train, validation = split_by_seed(whole, [1 - VALIDATION, VALIDATION])
    else:
        train, validation, test = split_by_seed(whole, [1 - VALIDATION - TEST, VALIDATION, TEST])
    return classification(
        train,
        validation,
        test,
        augment=varied if augment else None,
        labels=[str(digit) for digit in range(10)],
        preprocessing="grey pixels / 255, bright on black, as (1, 28, 28)",
    )


def varied(inputs: Inputs, seed: int, view: int) -> Inputs:
    """The image under a small affine map and a smooth random bending.

    Args:
        inputs: one example's.
        seed: the example's own.
        view: every view is another.

    Reference: Simard, Steinkraus and Platt: Best Practices for Convolutional Neural Networks Applied to Visual
        Document Analysis, 2003, section 2.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + view) % 2**63)
    places = BASIS @ (STILL + SPREAD * torch.randn(STILL.shape, generator=generator))
    grid = places.view(1, SIDE, SIDE, 2)
    return {"input": F.grid_sample(inputs["input"].unsqueeze(0), grid, align_corners=False).squeeze(0)}


def _basis() -> Tensor:
    """What a point of each pixel is a sum of, (SIDE * SIDE, 3 + KNOTS * KNOTS): x, y, 1 and the waves of the knots."""
    line = (2 * torch.arange(SIDE) + 1) / SIDE - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    knots = torch.eye(KNOTS * KNOTS).view(-1, 1, KNOTS, KNOTS)
    waves = F.interpolate(knots, size=(SIDE, SIDE), mode="bicubic", align_corners=True)
    return torch.cat([torch.stack([x, y, torch.ones_like(x)]).flatten(1), waves.flatten(1)]).T.contiguous()


BASIS = _basis()
STILL = torch.eye(len(BASIS[0]), 2)  # x and y as they are
SPREAD = torch.tensor([SLANT, SLANT, SHIFT, *[BEND] * (KNOTS * KNOTS)]).unsqueeze(1)


def _split(rows: Any, limit: int | None, path: str) -> Split:
    """All images as one tensor (N, 1, 28, 28) and the labels (N,), so that a batch is one indexing."""
    rows = tables.rows(rows, ("image", "label"), path, limit)
    images = torch.from_numpy(np.stack([np.asarray(image.convert("L")) for image in rows["image"]]))
    labels = torch.tensor(rows["label"][:], dtype=torch.int64)
    return Split(TensorDataset(images.unsqueeze(1).float() / 255, labels))
