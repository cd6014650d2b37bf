"""What low rank costs in ONNX Runtime: a layer's factors over the layer, in time and in MACs.

    python benchmarks/lowrank.py [--rounds 30]

One thread, fp32, batch 1; in turns, medians. Ratios above 1 are slower.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import nn

from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.measure.cost import torch_macs
from pipeline.model import TorchModel
from stages.prune.ranks.factors import factorized
from stages.prune.ranks.layers import find

SHARES = 0.75, 0.5, 0.25
LAYERS = {
    "3x3, 32 channels, 56x56": (lambda: nn.Conv2d(32, 32, 3, padding=1), (32, 56, 56)),
    "3x3, 64 channels, 56x56": (lambda: nn.Conv2d(64, 64, 3, padding=1), (64, 56, 56)),
    "3x3, 128 channels, 28x28": (lambda: nn.Conv2d(128, 128, 3, padding=1), (128, 28, 28)),
    "3x3, 256 channels, 14x14": (lambda: nn.Conv2d(256, 256, 3, padding=1), (256, 14, 14)),
    "3x3, 512 channels, 7x7": (lambda: nn.Conv2d(512, 512, 3, padding=1), (512, 7, 7)),
    "1x1, 256 channels, 14x14": (lambda: nn.Conv2d(256, 256, 1), (256, 14, 14)),
    "linear 384 to 1536, 128 tokens": (lambda: nn.Linear(384, 1536), (128, 384)),
    "linear 768 to 3072, 128 tokens": (lambda: nn.Linear(768, 3072), (128, 768)),
    "linear 768 to 768, 1 token": (lambda: nn.Linear(768, 768), (1, 768)),
}


def ranks_for(model: TorchModel, method: str, share: float) -> list[int]:
    """The ranks of the only layer whose MACs are nearest below a share; of two the most equal ones."""
    (layer,) = find(model, (), method).layers
    ranks = layer.choices(8)
    macs = layer.costs(ranks)[:, 1]
    fitting = ranks[macs <= share * layer.whole.macs]
    spread = (fitting[:, 0] - fitting[:, -1]).abs()
    best = fitting[spread == spread.min()]
    return best[best.sum(1).argmax()].tolist()


def runner(model: TorchModel, path: Path) -> Callable[[], float]:
    """Seconds of a call in ONNX Runtime, the least of ten."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = deploy(model, path).path
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    fed = {"input": model.example["input"][:1].numpy()}

    def seconds() -> float:
        times = []
        for _ in range(10):
            began = time.perf_counter()
            session.run(None, fed)
            times.append(time.perf_counter() - began)
        return min(times)

    seconds()
    return seconds


def main() -> None:
    """Print for each layer, method and share the ranks, and the ratios of MACs and of time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, shape) in LAYERS.items():
            example = {"input": torch.rand(2, *shape)}
            whole = TorchModel(nn.Sequential(nn.ReLU(), make(), nn.ReLU()), example, Reference(use="none"))
            theirs = runner(whole, Path(folder) / "whole.onnx")
            for method in ("tucker", "spatial") if name.startswith("3x3") else ("tucker",):
                for share in SHARES:
                    ranks = ranks_for(whole, method, share)
                    module = factorized(nn.Sequential(nn.ReLU(), make(), nn.ReLU()), {"1": ranks})
                    small = TorchModel(module, example, Reference(use="none"))
                    macs = torch_macs(module, example) / torch_macs(whole.module, example)
                    ours = runner(small, Path(folder) / "small.onnx")
                    ratios = [ours() / theirs() for _ in range(rounds)]
                    print(
                        f"{name}, {method} {ranks}: MACs {macs:.2f}, time {statistics.median(ratios):.2f}", flush=True
                    )


if __name__ == "__main__":
    main()
