"""scikit-learn's handwritten digits: 1,797 real grey images of 8x8, ten classes, no download."""

from importlib import metadata

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs
from pipeline.task import Split, Task, classification, split_by_seed

FILE = "sklearn/datasets/data/digits.csv.gz"  # a row an image: 64 pixels from 0 to 16, and its label
BRIGHTNESS = 0.1  # the largest change, as a share


def task(test: float = 0.25, validation: float = 0.1, augment: bool = False) -> Task:
    """Single-label classification of digits.

    Args:
        test, validation: shares of the 1,797 images, drawn with a fixed seed; the rest is train.
        augment: train on images that are moved and brightened a little, another way in each epoch.
    """
    # The file itself, for scikit-learn's own `load_digits` imports pandas, SciPy and more, for a second.
    table = np.loadtxt(str(metadata.distribution("scikit-learn").locate_file(FILE)), delimiter=",")
    images = torch.tensor(table[:, :-1], dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    labels = torch.tensor(table[:, -1], dtype=torch.int64)
    whole = Split(TensorDataset(images, labels))
    parts = split_by_seed(whole, [1 - test - validation, validation, test])
    return classification(
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        augment=varied if augment else None,
        labels=[str(digit) for digit in range(10)],
        preprocessing="grey pixels from 0, background, to 16, ink, divided by 16; float32 (1, 8, 8), channel first",
    )


def varied(inputs: Inputs, seed: int, epoch: int) -> Inputs:
    """The image (1, 8, 8) moved by up to a pixel each way and its brightness scaled by 0.9 to 1.1, within 0 to 1.

    Args:
        inputs: one example's.
        seed: the example's own.
        epoch: every epoch gives another view.
    """
    image = inputs["input"]
    height, width = image.shape[-2:]
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    top, left = torch.randint(0, 3, (2,), generator=generator).tolist()
    factor = 1 + BRIGHTNESS * (2 * torch.rand((), generator=generator) - 1)
    moved = F.pad(image, (1, 1, 1, 1))[..., top : top + height, left : left + width]
    return {"input": (moved * factor).clamp(0, 1)}
