from torch import nn


def net(width=32):
    return nn.Sequential(
        nn.Conv1d(3, width, 5, 2), nn.ReLU(), nn.Conv1d(width, 2 * width, 5, 2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(8 * width, 4),
    )  # fmt: skip
