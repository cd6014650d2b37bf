"""Why a file in ONNX Runtime's own format may be slower than the .onnx file: which optimizations it has.

    python benchmarks/ort_format.py [--rounds 7] [--threads 1]

A ResNet-56 of CIFAR-10 in fp32, batch 1: the .ort file as our runtime `ort` makes it, which is the same on every
processor, and the .onnx file at the same level of optimization ("extended", which leaves the layout of this processor
out), each over the .onnx file with all of them, in turns. Median, least and most.
"""

import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from in_turns import compare, rounds
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.model import TorchModel
from stages.benchmark.runners.ort import convert

CONFIGS = Path(__file__).parents[1] / "configs"
EXAMPLE = {"input": torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
CALLS = 100


def main() -> None:
    """Print the table."""
    count = rounds(__doc__)
    builder = Reference(use="models.py:resnet56", arguments={}, folder=CONFIGS / "cifar10")
    with TemporaryDirectory() as name:
        source = Path(name) / "model.onnx"
        deploy(TorchModel.build(builder, EXAMPLE), source)
        convert(source, Path(name) / "model.ort", Path(name) / "operators.txt")
        whole = loaded(source, GraphOptimizationLevel.ORT_ENABLE_ALL)
        extended = loaded(source, GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
        own = loaded(Path(name) / "model.ort", GraphOptimizationLevel.ORT_ENABLE_ALL)
        for title, session in (("the .ort file", own), ("the .onnx file, extended", extended)):
            compare(title, count, partial(seconds, session), partial(seconds, whole))


def loaded(path: Path, level: GraphOptimizationLevel) -> InferenceSession:
    """A session with as many threads as torch has."""
    options = SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = torch.get_num_threads()
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


def seconds(session: InferenceSession) -> float:
    """Wall time of some inferences."""
    images = {"input": EXAMPLE["input"].numpy().astype(np.float32)}
    begin = time.perf_counter()
    for _ in range(CALLS):
        session.run(None, images)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
