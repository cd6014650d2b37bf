"""scikit-learn's handwritten digits: 1,797 real grey images of 8x8, ten classes, no download."""

import torch
from torch.utils.data import TensorDataset

from pipeline.task import Split, Task, classification, split_by_seed


def task(test: float = 0.25, validation: float = 0.1) -> Task:
    """Single-label classification of digits.

    Args:
        test, validation: shares of the 1,797 images, drawn with a fixed seed; the rest is train.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target, dtype=torch.int64)
    whole = Split(TensorDataset(images, labels))
    parts = split_by_seed(whole, [1 - test - validation, validation, test])
    return classification(train=parts[0], validation=parts[1], test=parts[2])
