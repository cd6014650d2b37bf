import torch
from torch.utils.data import TensorDataset

from pipeline.task import Split, classification, split_by_seed


def task(examples=3000, length=64):
    """Windows of three axes; the class is the movement: rest, two rhythms, a knock."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (examples,), generator=draw)
    time = torch.arange(length) / length
    phase = torch.rand(examples, 1, generator=draw)
    slow, fast = ((2 * torch.pi * (rhythm * time + phase)).sin() for rhythm in (3, 6))
    knock = 3 * torch.exp(-((time - phase) * 20).square())
    movement = torch.stack([torch.zeros_like(slow), slow, fast, knock], 1)[torch.arange(examples), labels]
    windows = movement[:, None] * torch.tensor([1.0, 0.5, -0.7])[:, None]
    windows = windows + torch.randn(examples, 3, length, generator=draw) * 0.9
    return classification(*split_by_seed(Split(TensorDataset(windows, labels)), [0.6, 0.15, 0.25]))
