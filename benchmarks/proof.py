"""What the proof of each cut costs: `prune.channels` of ResNet-56, with and without.

    python benchmarks/proof.py [--rounds 5]

Seconds of CPU time on one thread, in turns, which other work on the machine changes little.
"""

import argparse
import logging
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from pipeline.base.use import Reference
from pipeline.model import TorchModel
from stages.prune.channels import ChannelPruning
from stages.prune.coupling import prover
from tests.contexts import bare_context


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, as in the ResNets for CIFAR-10."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(c, width, 3, s, 1, bias=False) for c, s in ((before, stride), (width, 1)))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))
        self.short = nn.Conv2d(before, width, 1, stride, bias=False) if before != width else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H / stride, W / stride)."""
        short = self.norms[2](self.short(x)) if self.short else x
        return torch.relu(self.norms[1](self.two(torch.relu(self.norms[0](self.one(x))))) + short)


def resnet(blocks: int = 9) -> nn.Module:
    """ResNet-56 where there are nine blocks in each of the three parts."""
    widths = [16] * blocks + [32] * blocks + [64] * blocks
    body = [Block(b, w, 1 if b == w else 2) for b, w in zip([16, *widths], widths, strict=False)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def seconds(folder: Path, proof: bool) -> float:
    """CPU time of the stage."""
    model = TorchModel(resnet(), {"input": torch.rand(2, 3, 32, 32)}, Reference(use="none"))
    began = time.process_time()
    with nullcontext() if proof else patch.object(prover, "same_without", lambda *_: True):
        ChannelPruning(macs=0.5).run(model, bare_context(folder))
    return time.process_time() - began


def main() -> None:
    """Print both times and their ratio, medians with the least and the most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        seconds(Path(folder), proof=True)  # imports
        pairs = [[seconds(Path(folder), proof) for proof in (True, False)] for _ in range(rounds)]
    for name, values in zip(("with", "without"), zip(*pairs, strict=True), strict=True):
        print(f"{name}: {statistics.median(values):.1f} s ({min(values):.1f}, {max(values):.1f})")
    ratios = [one / other for one, other in pairs]
    print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})")


if __name__ == "__main__":
    main()
