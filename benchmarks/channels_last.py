"""Time of a training step with `channels_last` over one without, for networks of the configs.

    python benchmarks/channels_last.py [--rounds 7] [--threads 1]

Both kinds of step take turns. Prints the median of the ratios and the least and the most of them; below 1 it pays.
"""

import time
from functools import partial
from pathlib import Path

import torch
from in_turns import compare, rounds
from torch import nn

from pipeline.base.use import Reference
from stages.trainer.settings import lay_out

CONFIGS = Path(__file__).parents[1] / "configs"
BATCH, STEPS = 128, 4
NETWORKS = {
    "cifar10, ResNet-20": ("cifar10", "ResNet", {}, (3, 32, 32)),
    "cifar10, the student": ("cifar10", "ResNet", {"widths": [12, 20, 29], "blocks": [2, 3, 3]}, (3, 32, 32)),
    "fashion_mnist, the teacher": ("fashion_mnist", "FashionNet", {}, (1, 28, 28)),
    "fashion_mnist, the student": (
        "fashion_mnist", "FashionNet", {"widths": [16, 24, 32], "blocks": [1, 0, 0]}, (1, 28, 28),
    ),
}  # fmt: skip


def main() -> None:
    """Print the table."""
    count = rounds(__doc__)
    for name, (folder, use, arguments, shape) in NETWORKS.items():
        builder = Reference(use=f"models.py:{use}", arguments=arguments, folder=CONFIGS / folder)
        for bf16 in (False, True):
            plain, last = builder.call(), builder.call()
            lay_out(last, torch.channels_last)
            kind = "bf16" if bf16 else "fp32"
            compare(f"{name} {kind}", count, partial(seconds, last, shape, bf16), partial(seconds, plain, shape, bf16))


def seconds(module: nn.Module, shape: tuple[int, ...], bf16: bool) -> float:
    """Wall time of some steps of SGD on random images."""
    images, labels = torch.randn(BATCH, *shape), torch.randint(0, 10, (BATCH,))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    begin = time.perf_counter()
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = nn.functional.cross_entropy(module(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
