"""The sensitivity of ResNet-56's layers beside a whole evaluation for each layer and width: cost, and order of layers.

    python benchmarks/sensitivity.py --data FOLDER --weights FILE [--examples 1000] [--tried 128]

FOLDER has parquet files of CIFAR-10, FILE is the published resnet56.th. For its layers at 8, 4 and 2 bits the change
of the answers is measured in two ways, on one thread: by `quantize.sensitivity` on `--tried` calibration images, and
for each layer and width by a file that `quantize.static` makes of that layer alone, which answers `--examples`
validation images. It prints the seconds of ours over those of as many evaluations on all 5,000 validation images, of
which one is timed, and the rank correlation of the layers at each width and of all together.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import spearmanr

from pipeline.base.use import Reference, find
from pipeline.context import Context
from pipeline.deploy import deploy
from pipeline.forms.weights import load_weights
from pipeline.measure.sensitivity.divergence import divergence
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split
from stages.quantize.mixed.measuring import Row, Sensitivity
from stages.quantize.quantizing.assigned import Assigned
from stages.quantize.rounding.settings import schemes_of
from stages.quantize.static import StaticQuantization
from tests.contexts import context_of

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10"
WIDTHS = (8, 4, 2)
OPERATORS = ("Conv", "Gemm", "MatMul")


def network(weights: Path, folder: Path) -> OnnxModel:
    """The published ResNet-56 as an ONNX file."""
    builder = Reference(use="models.py:resnet56", folder=CONFIG)
    model = TorchModel.build(builder, {"input": torch.rand(2, 3, 32, 32)})
    load_weights(model.module, weights)
    return deploy(model, folder / "resnet56.onnx")


def answers(model: OnnxModel, split: Split) -> torch.Tensor:
    """The logits for a split."""
    logits = torch.cat([model.predict(batch.inputs)["output"] for batch in split.loader(250)])
    model.close()
    return logits


def evaluated(model: OnnxModel, rows: list[Row], ctx: Context, split: Split) -> list[list[float]]:
    """The divergence for each row and width by a file of its own."""
    before, divergences = answers(model, split).numpy(), []
    with StaticQuantization(examples=128, operators=OPERATORS).trials(model, ctx) as trial:
        trial(replace(ctx, directory=ctx.directory / "all"))  # measures the ranges, once for all
        for i, row in enumerate(rows):
            others = [name for other in rows if other is not row for name in other.nodes]
            divergences.append(list[float]())
            for width in WIDTHS:
                inner = replace(ctx, directory=ctx.directory / f"{i}-{width}")
                file = trial(inner, Assigned(others), layers=dict.fromkeys(row.nodes, width))
                after = answers(file, split).numpy()
                divergences[-1].append(divergence([(before, after)], ctx.labelling))
    return divergences


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--tried", type=int, default=128)
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = find("data.py", CONFIG).task(given.data)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, ctx = network(given.weights, folder), context_of(task, folder / "stage")
        began = time.perf_counter()
        rows = Sensitivity(schemes_of(WIDTHS), "static", OPERATORS, examples=given.tried).of(model, ctx)
        ours = time.perf_counter() - began
        print(f"ours: {len(rows)} layers at {len(WIDTHS)} widths in {ours:.1f} s", flush=True)
        began = time.perf_counter()
        answers(model, task.validation)
        one, count = time.perf_counter() - began, len(rows) * len(WIDTHS)
        print(
            f"one evaluation of {len(task.validation)} images: {one:.1f} s; ours over {count}: {ours / one / count:.3f}"
        )
        split = task.validation.select(list(range(given.examples)))
        theirs = np.array(evaluated(model, rows, ctx, split))
    own = np.array([[row.effects[str(width)] for width in WIDTHS] for row in rows])
    for i, width in enumerate(WIDTHS):
        print(f"rank correlation at {width} bits: {spearmanr(own[:, i], theirs[:, i]).statistic:.3f}")
    print(f"of all together: {spearmanr(own.ravel(), theirs.ravel()).statistic:.3f}")


if __name__ == "__main__":
    main()
