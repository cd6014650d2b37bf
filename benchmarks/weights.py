"""What weights of few bits and halves cost and bring: bytes, latency, outputs, accuracy.

    python benchmarks/weights.py --words MODEL --data FOLDER [--weights FILE] [--rounds 15] [--examples 400]
        [--length 32] [--only TEXT]

MODEL is all-MiniLM-L6-v2 and FOLDER has sst2 and cifar10 as parquet, a folder each; FILE is the published resnet56.th.
MiniLM reads sentences of SST-2, and a layer fitted to what it gives for three times `--examples` of train, by least
squares, tells good from bad: so many of validation are scored. ResNet-56 is scored on as many test images. For each
stage: bytes of the file and latency in ONNX Runtime over fp32's, in turns, batch 1, one thread (median, least, most);
accuracy, and the mean KL divergence from fp32's answers.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn
from transformers import AutoModel

from pipeline.base.use import Reference, find
from pipeline.deploy import deploy
from pipeline.forms.weights import load_weights
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.half import HalfPrecision
from stages.quantize.static import StaticQuantization
from stages.quantize.weights import WeightQuantization
from tests.contexts import bare_context

CONFIGS = Path(__file__).parents[1] / "configs"
CALLS = 20
PRODUCTS = ("MatMul", "Gemm")
"""Without sums and norms, which cost MiniLM more than products do."""
HALVES: dict[str, Any] = {
    "fp16, computed in fp32": HalfPrecision(),
    "bf16, computed in fp32": HalfPrecision(kind="bf16"),
    "fp16, computed in fp16": HalfPrecision(compute="half"),
}
WORDS: dict[str, Any] = {
    "dynamic int8": DynamicQuantization(),
    "static int8": StaticQuantization(examples=100, operators=PRODUCTS),
    "static int8, smooth": StaticQuantization(examples=100, operators=PRODUCTS, smooth=0.5),
    **{
        f"{bits} bits, computed in {compute}": WeightQuantization(bits=bits, compute=compute)
        for bits in (8, 4, 2)
        for compute in ("fp32", "int8")
    },
    "4 bits, nearest": WeightQuantization(method="nearest"),
    "4 bits, symmetric": WeightQuantization(method="nearest", symmetric=True),
    "4 bits, hqq": WeightQuantization(method="hqq"),
    "4 bits, gptq": WeightQuantization(method="gptq", examples=100),
    "2 bits, gptq": WeightQuantization(bits=2, method="gptq", examples=100),
    **{f"4 bits, blocks of {size}": WeightQuantization(block_size=size) for size in (16, 64, 128)},
    **HALVES,
}
IMAGES: dict[str, Any] = {
    "static int8": StaticQuantization(examples=100),
    "static int8, equalized": StaticQuantization(examples=100, equalize=True),
    "static int8, a scale a weight": StaticQuantization(examples=100, per_channel=False),
    "the same, equalized": StaticQuantization(examples=100, per_channel=False, equalize=True),
    **HALVES,
}


class Sentiment(nn.Module):
    """Ids and mask (N, L) -> `logits` (N, 2): MiniLM's mean over the tokens, and a layer."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.words, self.head = AutoModel.from_pretrained(folder), nn.Linear(384, 2)

    def mean(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(N, 384)."""
        mask = attention_mask.unsqueeze(2).float()
        states = self.words(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return (states * mask).sum(1) / mask.sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """The logits."""
        return {"logits": self.head(self.mean(input_ids, attention_mask))}


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--length", type=int, default=32, help="tokens of the text that is timed")
    parser.add_argument("--only", default="", help="rows with this in their name")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, torch.no_grad():
        if given.words:
            table("MiniLM", *sentences(given, Path(folder)), WORDS, given, Path(folder))
        if given.weights:
            table("ResNet-56", *images(given, Path(folder)), IMAGES, given, Path(folder))


def sentences(given: argparse.Namespace, folder: Path) -> tuple[OnnxModel, Split, Split]:
    """The fp32 file, the examples that are scored, and those to calibrate on."""
    task = find("data.py", CONFIGS / "sst2").task(str(given.data / "sst2"), given.words, 4 * given.examples)
    torch.manual_seed(0)
    module = Sentiment(given.words).eval()
    fit(module, task.train.select(range(min(len(task.train), 3 * given.examples))))
    ids = torch.randint(1000, 20_000, (2, given.length))
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    model = deploy(TorchModel(module, example, Reference(use="x"), axes=task.axes), folder / "words.onnx")
    return model, task.test.select(range(given.examples)), task.train.select(range(100))


def fit(module: Sentiment, split: Split) -> None:
    """Give the last layer the ridge regression of -1 and 1 on what the rest gives, times 4."""
    batches = list(split.loader(64))
    means = torch.cat([module.mean(**batch.inputs) for batch in batches]).double()
    signs = torch.cat([2 * batch.targets - 1 for batch in batches]).double()
    centre = means.mean(0)
    rows = means - centre
    weight = torch.linalg.solve(rows.T @ rows + 0.02 * len(rows) * rows.var() * torch.eye(384).double(), rows.T @ signs)
    module.head.weight.copy_(torch.stack([-weight, weight]).float() * 4)
    shift = 4 * (signs.mean() - centre @ weight)
    module.head.bias.copy_(torch.stack([-shift, shift]).float())


def images(given: argparse.Namespace, folder: Path) -> tuple[OnnxModel, Split, Split]:
    """The fp32 file, the examples that are scored, and those to calibrate on."""
    task = find("data.py", CONFIGS / "cifar10").task(str(given.data / "cifar10"), 4 * given.examples)
    builder = Reference(use="models.py:resnet56", arguments={}, folder=CONFIGS / "cifar10")
    model = TorchModel.build(builder, {"input": torch.rand(2, 3, 32, 32)})
    load_weights(model.module, given.weights)
    return deploy(model, folder / "images.onnx"), task.test.select(range(given.examples)), task.train.select(range(100))


def table(
    title: str,
    fp32: OnnxModel,
    split: Split,
    data: Split,
    rows: dict[str, Any],
    given: argparse.Namespace,
    folder: Path,
) -> None:
    """Print how each stage's file compares."""
    size, answers = fp32.path.stat().st_size, logits(fp32, split)
    print(f"\n{title}: fp32 {size:,} bytes, accuracy {accuracy(answers, split):.4f}", flush=True)
    print(f"{'':30} {'bytes':>12} {'of fp32':>8}  latency                accuracy  KL         seconds")
    old = timed(fp32)
    for name, stage in rows.items():
        if given.only not in name:
            continue
        began = time.perf_counter()
        file = stage.run(fp32, replace(bare_context(folder / name, calibration=data), directory=folder / name))
        took, new, own = time.perf_counter() - began, timed(file), logits(file, split)
        ratios = [new() / old() for _ in range(given.rounds + 1)][1:]
        latency = f"{median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"
        kl = (answers.softmax(1) * (answers.log_softmax(1) - own.log_softmax(1))).sum(1).mean()
        after = file.path.stat().st_size
        score = f"{accuracy(own, split):.4f}    {kl:.2e}  {took:5.1f}"
        print(f"{name:30} {after:12,} {after / size:8.3f}  {latency:22} {score}", flush=True)


def logits(model: OnnxModel, split: Split) -> Tensor:
    """(N, classes)."""
    parts = [next(iter(model.predict(batch.inputs).values())) for batch in split.loader(32)]
    model.close()
    return torch.cat(parts)


def accuracy(answers: Tensor, split: Split) -> float:
    """The share of right answers."""
    targets = torch.cat([batch.targets for batch in split.loader(32)])
    return float((answers.argmax(1) == targets).float().mean())


def timed(model: OnnxModel) -> Callable[[], float]:
    """What tells the wall time of some inferences of one example."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.path, options, providers=["CPUExecutionProvider"])
    return partial(seconds, session, {name: value[:1].numpy() for name, value in model.example.items()})


def seconds(session: onnxruntime.InferenceSession, inputs: dict[str, Any]) -> float:
    """Wall time of some inferences."""
    begin = time.perf_counter()
    for _ in range(CALLS):
        session.run(None, inputs)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
