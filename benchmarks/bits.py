"""Accuracy of the CIFAR-10 student with weights of few bits, without training: nearest and adaptive rounding.

    python benchmarks/bits.py --data FOLDER

FOLDER has parquet files of CIFAR-10. For 8 to 2 bits, ternary and codebooks each way of rounding is measured on the
5,000 validation images, in ONNX Runtime with activations of 8 bits; the first and the last layer keep 8 bits. The best
way is then measured on the test images.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipeline.base.use import Reference, find
from pipeline.deploy import deploy
from pipeline.forms.weights import load_weights
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split
from stages.quantize.static import StaticQuantization
from tests.contexts import bare_context

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10"
STUDENT = {"widths": [12, 20, 29], "blocks": [2, 3, 3]}
SCHEMES: dict[str, dict[str, Any]] = {
    **{f"{bits} bits": {"bits": bits} for bits in (8, 6, 5, 4, 3, 2)},
    "ternary": {"bits": "ternary"},
    **{f"codebook {size}": {"codebook": size} for size in (32, 16, 8, 4)},
}
WAYS: dict[str, dict[str, Any]] = {
    "nearest": {},
    "and bias": {"bias_correction": True},
    "adaptive": {"rounding": "adaptive"},
    "adaptive and bias": {"rounding": "adaptive", "bias_correction": True},
}


def accuracy(model: OnnxModel, split: Split) -> float:
    """The share of right answers, in per cent."""
    right = [(model.predict(batch.inputs)["output"].argmax(1) == batch.targets).float() for batch in split.loader(250)]
    model.close()
    return 100 * float(torch.cat(right).mean())


def student(folder: Path) -> OnnxModel:
    """The committed student as an ONNX file."""
    builder = Reference(use="models.py:ResNet", arguments=STUDENT, folder=CONFIG)
    model = TorchModel.build(builder, {"input": torch.rand(2, 3, 32, 32)})
    load_weights(model.module, CONFIG / "weights" / "student.safetensors")
    return deploy(model, folder / "student.onnx")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--only", nargs="*", help="rows, such as `4 bits`")
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = find("data.py", CONFIG).task(given.data)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = student(folder)
        context = bare_context(folder / "stage", calibration=task.calibration)
        print(f"fp32: validation {accuracy(model, task.validation):.2f}, test {accuracy(model, task.test):.2f}")
        print(f"{'':12}" + "".join(f"{way:>19}" for way in WAYS) + "    test of the best, seconds", flush=True)
        for name, scheme in SCHEMES.items():
            if given.only and name not in given.only:
                continue
            scores: list[float] = []
            files, began = [], time.perf_counter()
            for i, way in enumerate(WAYS.values()):
                stage = StaticQuantization(**scheme, **way)
                files.append(stage.run(model, replace(context, directory=folder / f"{name} {i}")))
                scores.append(accuracy(files[-1], task.validation))
            best = files[max(range(len(files)), key=scores.__getitem__)]
            row = "".join(f"{score:19.2f}" for score in scores)
            print(f"{name:12}{row}{accuracy(best, task.test):19.2f} {time.perf_counter() - began:7.0f}", flush=True)


if __name__ == "__main__":
    main()
