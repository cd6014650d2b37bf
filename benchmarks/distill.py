"""distill.logits beside the training loop that the texts write: time, throughput and accuracy, in one run.

    python benchmarks/distill.py [--data FOLDER] [--examples 10000] [--epochs 10] [--rounds 3] [--threads 1]
                                 [--defaults] [--quick]

On scikit-learn's digits and, with `--data`, on the images of a folder of parquet files (column `image`, one channel;
`label`) such as Fashion-MNIST. A round trains one seed: ours, the plain loop, ours again. Ours is all that the runner
does for the stage: an empty store, the teacher's logits computed and kept, checkpoints and validation every epoch, the
result saved, rebuilt, compared and committed. The plain loop runs the teacher in every step and writes nothing; it
validates every epoch as well. Both start from the same weights, take as many steps on batches of the same size with
Adam at the same constant rate, and keep the epoch that validates best; the order of the examples differs. With
`--defaults` ours has the stage's own schedule, clipping and weight decay instead.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from pipeline.base.signals import Interrupts
from pipeline.base.use import Reference
from pipeline.build.build import Built
from pipeline.build.config import PipelineConfig
from pipeline.build.probe import SplitSummary, example_inputs, probe
from pipeline.measure.cost import torch_macs
from pipeline.measure.statistics.means import drop
from pipeline.model import TorchModel
from pipeline.records.journal import Journal
from pipeline.run.executor import Executor
from pipeline.run.store.store import Store
from pipeline.stage import Stage
from pipeline.task import Split, Task, classification
from pipeline.tasks import digits
from stages.distill.logits import LogitDistillation
from stages.train.supervised import SupervisedTraining

TEACHER, STUDENT = 52, 16  # widths: 10 times the MACs
TEST, VALIDATION = 10_000, 2_000  # images, where a folder is given
HERE = Path(__file__).parent
LIKE_PLAIN = {"schedule": "constant", "warmup": 0, "gradient_clip": None, "weight_decay": 0}
TEMPERATURE, HARD_WEIGHT, RATE, BATCH_SIZE = 4.0, 0.3, 1e-3, 64
MARGIN = 0.005  # of accuracy: a loss below it counts as none
Scores = NDArray[np.float64]


class Net(nn.Module):
    """Three convolutions, each with batch normalization and pooling: (N, 1, H, W) -> logits (N, 10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (1, width, 2 * width, 4 * width)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm2d(size) for size in sizes[1:])
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of grey images."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(torch.relu(norm(conv(x))), 2)
        return cast(Tensor, self.head(x.mean((2, 3))))


@dataclass(frozen=True)
class Setting:
    """What is learned from whom, how long; the rest is for our stage alone."""

    use: str
    task: Task
    seen: dict[str, SplitSummary]
    teacher: TorchModel
    epochs: int
    rest: dict[str, Any]

    @property
    def examples(self) -> int:
        """That one training sees."""
        return self.epochs * (len(self.task.train) // BATCH_SIZE) * BATCH_SIZE


def plain(setting: Setting, seed: int) -> nn.Module:
    """The student, by the loop that the texts write."""
    torch.manual_seed(seed)
    student, teacher, alpha = Net(STUDENT), setting.teacher.module.eval(), 1 - HARD_WEIGHT
    train = DataLoader(tensors(setting.task.train), batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
    validation = DataLoader(tensors(setting.task.validation), batch_size=256)
    optimizer = torch.optim.Adam(student.parameters(), lr=RATE)
    best, kept = -1.0, student
    for _ in range(setting.epochs):
        student.train()
        for images, labels in train:
            with torch.no_grad():
                taught = teacher(images) / TEMPERATURE
            logits = student(images)
            soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, dim=1), F.softmax(taught, dim=1), reduction="batchmean")
            loss = alpha * TEMPERATURE**2 * soft + (1 - alpha) * F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        student.eval()
        if (found := float(score(student, validation).mean())) > best:
            best, kept = found, copy.deepcopy(student)
    return kept


def ours(setting: Setting, seed: int) -> nn.Module:
    """The student, by the stage as the runner runs it, with nothing in the store."""
    stage = LogitDistillation.model_validate(
        {
            "student": Reference(use="distill.py:Net", arguments={"width": STUDENT}, folder=HERE),
            "temperature": TEMPERATURE,
            "hard_weight": HARD_WEIGHT,
            "epochs": setting.epochs,
            "batch_size": BATCH_SIZE,
            "learning_rate": RATE,
            **setting.rest,
        }
    )
    return made(setting, stage, "distill.logits", seed).module


def made(setting: Setting, stage: Stage, use: str, seed: int) -> TorchModel:
    """What a stage makes of the teacher by all the runner's means, the store included, which is empty."""
    named = {"task": {"use": setting.use}, "model": {"use": "distill.py:Net"}, "stages": [{"use": use}]}
    config = PipelineConfig.model_validate({**named, "seed": seed, "device": "cpu", "folder": HERE})
    built = Built(config, setting.task, setting.seen, setting.teacher, (), ((use, stage),), ())
    with tempfile.TemporaryDirectory() as name, open("/dev/null", "w") as nowhere:
        folder = Path(name)
        executor = Executor(
            built, Store(folder / "store"), Journal(folder / "journal"), Console(file=nowhere), Interrupts()
        )
        given = executor.start(folder / "start")
        return cast(TorchModel, executor.make(use, stage, use, given, folder / "made").model)


def tensors(split: Split) -> TensorDataset:
    """The split in memory."""
    batch = next(iter(split.loader(len(split))))
    return TensorDataset(batch.inputs["input"], batch.targets)


def score(module: nn.Module, loader: DataLoader[Any]) -> Scores:
    """1 where the module is right, else 0."""
    with torch.no_grad():
        found = [(module(images).argmax(1) == labels).double() for images, labels in loader]
    return np.asarray(torch.cat(found))


def of_folder(folder: Path, train: int, validation: int, test: int) -> Task:
    """The images of a folder of parquet files; test are the first, so that they are the same for any size of train."""
    from datasets import load_dataset

    rows = load_dataset(str(folder), split="train").select(range(test + validation + train))
    images = torch.from_numpy(np.stack([np.asarray(image) for image in rows["image"]])).float().unsqueeze(1) / 255
    whole = Split(TensorDataset(images, torch.tensor(rows["label"])))
    ends = (0, test, test + validation, len(rows))
    parts = [whole.select(list(range(a, b))) for a, b in pairwise(ends)]
    return classification(train=parts[2], validation=parts[1], test=parts[0])


def prepared(name: str, task: Task, epochs: int, teacher_epochs: int, rest: dict[str, Any]) -> Setting:
    """The setting with a trained teacher."""
    torch.manual_seed(0)
    builder = Reference(use="distill.py:Net", arguments={"width": TEACHER}, folder=HERE)
    untrained = TorchModel.build(builder, example_inputs(task.train))
    setting = Setting(name, task, probe(task), untrained, epochs, rest)
    stage = SupervisedTraining(epochs=teacher_epochs, learning_rate=2 * RATE)
    return replace(setting, teacher=made(setting, stage, "train.supervised", 0))


def timed(train: Callable[[], nn.Module], test: DataLoader[Any]) -> tuple[float, Scores]:
    """Seconds of a training, and what its student scores on test."""
    began = time.perf_counter()
    module = train()
    return time.perf_counter() - began, score(module.eval(), test)


def compared(setting: Setting, rounds: int) -> dict[str, Any]:
    """The figures of one set: a round is a seed, and ours runs before and after the plain loop."""
    test = DataLoader(tensors(setting.task.test), batch_size=256)
    seconds, scores = [], []
    for seed in range(rounds):
        runs = [timed(partial(train, setting, seed), test) for train in (ours, plain, ours)]
        if not np.array_equal(runs[0][1], runs[2][1]):
            raise RuntimeError("the same seed gave another student")
        seconds.append([took for took, _ in runs])
        scores.append([right for _, right in runs[:2]])
        print(f"{setting.use}, seed {seed}: ours, plain, ours {[round(s, 1) for s in seconds[-1]]} s", file=sys.stderr)
    example = setting.teacher.example
    cost = [torch_macs(module, example) for module in (setting.teacher.module, Net(STUDENT))]
    return {
        "train_validation_test": [len(setting.task.splits[name]) for name in ("train", "validation", "test")],
        "epochs": setting.epochs,
        "macs_teacher_student": [*cost, round(cost[0] / cost[1], 2)],
        "teacher_accuracy": round(float(score(setting.teacher.module, test).mean()), 4),
        **speed(np.array(seconds), setting.examples),
        **accuracy(np.array(scores)),
    }


def speed(seconds: NDArray[np.float64], examples: int) -> dict[str, Any]:
    """Figures of time.

    Args:
        seconds: (rounds, 3): ours, plain, ours. The mean of ours lies at the same time as plain, so that a machine
            that slows down steadily counts for nothing.
        examples: seen by each.
    """
    mine = seconds[:, [0, 2]].mean(1)
    ratios, same = seconds[:, 1] / mine, seconds[:, 2] / seconds[:, 0]
    return {
        "seconds_ours_plain_ours": seconds.round(2).tolist(),
        "plain_over_ours_median_min_max": figures(ratios),
        "ours_over_ours_median_min_max": figures(same),
        "examples_per_second_ours_plain": [round(examples / float(np.median(s))) for s in (mine, seconds[:, 1])],
    }


def accuracy(scores: NDArray[np.float64]) -> dict[str, Any]:
    """Figures of accuracy.

    Args:
        scores: (seeds, 2, examples): ours and plain, right or wrong.
    """
    ours, plain = scores.mean(0)
    lost = drop(ours, plain)  # paired by example, each with the mean of its seeds
    gains = scores[:, 0].mean(1) - scores[:, 1].mean(1)
    half = float(stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else None
    return {
        "accuracy_ours": scores[:, 0].mean(1).round(4).tolist(),
        "accuracy_plain": scores[:, 1].mean(1).round(4).tolist(),
        "ours_minus_plain_interval": [round(-v, 4) for v in (lost.value, lost.high, lost.low)],
        "over_seeds_plus_minus": half and round(half, 4),
        f"non_inferior_by_{MARGIN}": -lost.high > -MARGIN,
    }


def figures(values: NDArray[np.float64]) -> list[float]:
    """Median, least, most."""
    return [round(float(v), 3) for v in (np.median(values), values.min(), values.max())]


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of parquet files")
    parser.add_argument("--examples", type=int, default=10_000, help="to train on, of the folder's")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="one seed each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--defaults", action="store_true", help="the stage's own schedule, clipping and decay")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    epochs, rounds = (2, 1) if given.quick else (given.epochs, given.rounds)
    tasks = {"digits": digits.task()}
    if given.data:
        sizes = (1_000, 500, 1_000) if given.quick else (given.examples, VALIDATION, TEST)
        tasks[given.data.name] = of_folder(given.data, *sizes)
    rest = {} if given.defaults else LIKE_PLAIN
    found: dict[str, Any] = {"threads": given.threads, "ours": rest or "defaults"}
    for name, task in tasks.items():
        found[name] = compared(prepared(name, task, epochs, 2 if given.quick else 5, rest), rounds)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
