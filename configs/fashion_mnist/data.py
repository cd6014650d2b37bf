"""Fashion-MNIST: 28x28 grey images of clothes, ten classes, read with Hugging Face `datasets`."""

import random
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs
from pipeline.task import Split, Task, classification, split_by_seed
from pipeline.tasks import tables

LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
VALIDATION = 1 / 12  # of the 60,000 that come as train: 5,000
TEST = 1 / 6  # likewise 10,000, where there is no test part
SHIFT = 2  # pixels, the most that an image is moved by


def task(
    path: str = "zalando-datasets/fashion_mnist", limit: int | None = None, augment: bool = False, erase: int = 0
) -> Task:
    """Single-label classification of clothes, from `input` (1, 28, 28) in 0 to 1.

    Args:
        path: a name on the Hugging Face hub, or a folder of parquet files, with the columns `image` and `label`. Its
            test part is the test split; where it has none, 10,000 images of train are, drawn with a fixed seed.
        limit: examples read of each part at most, for small runs.
        augment: train on images that are moved and mirrored, another way in each epoch.
        erase: with `augment`, side in pixels of a square that is made black in half of the images; 0 for none.

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
        augment=partial(varied, erase=erase) if augment else None,
        labels=LABELS,
        preprocessing="grey pixels / 255, bright on black, as (1, 28, 28)",
    )


def varied(inputs: Inputs, seed: int, view: int, erase: int = 0) -> Inputs:
    """The image moved by up to two pixels each way, and in half of the cases mirrored.

    Args:
        inputs: one example's.
        seed: the example's own.
        view: every view is another.
        erase: side of a square, anywhere, that is made black in half of the cases.

    Reference: Zhong, Zheng, Kang, Li and Yang: Random Erasing Data Augmentation, 2017, arXiv:1708.04896; here of one
        size and colour.
    """
    image = inputs["input"]
    height, width = image.shape[-2:]
    draw = random.Random(seed * 1_000_003 + view)
    top, left, mirrored = draw.randint(0, 2 * SHIFT), draw.randint(0, 2 * SHIFT), draw.random() < 0.5
    moved = F.pad(image, (SHIFT,) * 4)[..., top : top + height, left : left + width]
    moved = moved.flip(-1) if mirrored else moved
    if erase and draw.random() < 0.5:
        moved = moved.clone()
        top, left = draw.randint(0, height - erase), draw.randint(0, width - erase)
        moved[..., top : top + erase, left : left + erase] = 0
    return {"input": moved}


def _split(rows: Any, limit: int | None, path: str) -> Split:
    """All images as one tensor (N, 1, 28, 28) and the labels (N,), so that a batch is one indexing."""
    rows = tables.rows(rows, ("image", "label"), path, limit)
    images = torch.from_numpy(np.stack([np.asarray(image.convert("L")) for image in rows["image"]]))
    labels = torch.tensor(rows["label"][:], dtype=torch.int64)
    return Split(TensorDataset(images.unsqueeze(1).float() / 255, labels))
