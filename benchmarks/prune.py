"""`prune.channels` beside a plain script on torch-pruning: the same network, MACs and recovery steps, three seeds.

    python benchmarks/prune.py [--net digits | cifar10] [--share 0.5] [--latency 0.5] [--epochs 10]
        [--seeds 0 1 2] [--limit N] [--data FOLDER] [--weights FILE]

digits is the teacher of configs/digits, trained first for each seed; cifar10 the published ResNet-20 (`--weights`, its
resnet20.th) on CIFAR-10 as parquet (`--data`). The script does as torch-pruning's README says: a magnitude pruner with
one ratio for all layers but the last, bisected until at most the share of the MACs remains; then training on labels
with AdamW and a falling rate, as many steps as ours has of the same batches, the last weights kept. Ours is the stage
with `recovery` from the incoming model, at the same rate, once for the MACs and once for a latency.

Printed for each seed: share of the MACs, accuracy on the test split, looked at once a model, and the latency over that
of the whole network's file in ONNX Runtime, in turns on one thread.
"""

import argparse
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from pipeline.base.use import Reference
from pipeline.build.start import build_task
from pipeline.deploy import deploy
from pipeline.measure.cost import torch_macs
from pipeline.measure.kernels.kernels import latency_ratio
from pipeline.model import TorchModel, call, load
from pipeline.runner import run
from pipeline.task import Task

CONFIGS = Path(__file__).parents[1] / "configs"
BATCH, RATE = 128, 2e-3


class Net(NamedTuple):
    """A network of configs/: its folder, its last layer, and the keys of the pipeline file."""

    folder: str
    last: str
    task: dict[str, Any]
    model: dict[str, Any]
    baseline: list[dict[str, Any]]


class Outcome(NamedTuple):
    """What a way came to."""

    macs: float
    accuracy: float
    latency: float


def net_of(given: argparse.Namespace) -> Net:
    """The network that is asked for."""
    if given.net == "digits":
        trained = {"use": "train.supervised", "epochs": 15, "learning_rate": 0.002}
        model = {"use": "models.py:DigitNet", "width": 64, "blocks": 3}
        return Net("digits", "head", {"use": "digits"}, model, [trained])
    task = {"use": "data.py", "path": str(given.data.resolve())}
    return Net("cifar10", "linear", task, {"use": "models.py:resnet20", "weights": str(given.weights.resolve())}, [])


def ours(net: Net, target: dict[str, float], seed: int, given: argparse.Namespace, runs: Path) -> list[TorchModel]:
    """The whole model and the pruned one."""
    recovery = {"epochs": given.epochs, "batch_size": BATCH, "learning_rate": RATE}
    stages = [{"use": "prune.channels", **target, "recovery": recovery}]
    chain = {"task": net.task, "model": net.model, "baseline": net.baseline, "stages": stages, "slower": "ignore"}
    keys = {key: value for key, value in chain.items() if value} | {"seed": seed}
    record = run(keys, folder=CONFIGS / net.folder, runs=runs, track=False, limit=given.limit)
    models = [record.baseline, record.stages[-1]]
    return [load(Path(record.folder, model.folder), CONFIGS / net.folder) for model in models if model]


def theirs(net: Net, model: TorchModel, task: Task, seed: int, given: argparse.Namespace) -> nn.Module:
    """What the plain script makes of the same module."""
    module = pruned(model, net.last, given.share)
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=0.01)
    steps = given.epochs * (len(task.train) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    torch.manual_seed(seed)
    module.train()
    for batch in batches(task, given.epochs, seed):
        optimizer.zero_grad()
        task.loss(call(module, batch.inputs), batch.targets).backward()
        optimizer.step()
        schedule.step()
    return module.eval()


def pruned(model: TorchModel, last: str, share: float) -> nn.Module:
    """By torch-pruning, with the smallest ratio at which no more than the share of the MACs remains."""
    import torch_pruning as tp

    def at(ratio: float) -> nn.Module:
        module = copy.deepcopy(model.module)
        inputs = next(iter(model.example.values()))
        importance = tp.importance.GroupMagnitudeImportance(p=2)
        kept = [module.get_submodule(last)]
        tp.pruner.MagnitudePruner(module, inputs, importance, pruning_ratio=ratio, ignored_layers=kept).step()
        return module

    low, high = 0.0, 0.95
    for _ in range(12):
        ratio = (low + high) / 2
        fits = torch_macs(at(ratio), model.example) <= share * torch_macs(model.module, model.example)
        low, high = (low, ratio) if fits else (ratio, high)
    return at(high)


def batches(task: Task, epochs: int, seed: int) -> Iterator[Any]:
    """Those of a training, of which the last of an epoch is whole."""
    for epoch in range(epochs):
        steps = len(task.train) // BATCH
        loader = iter(task.train.loader(BATCH, order=(seed, epoch), view=epoch, augment=task.augment))
        yield from (next(loader) for _ in range(steps))


def outcome(module: nn.Module, whole: TorchModel, task: Task, folder: Path) -> Outcome:
    """Of a module, beside the whole one."""
    model = TorchModel(module.eval(), whole.example, whole.builder)
    files = [deploy(one, folder / f"{place}.onnx") for place, one in enumerate((whole, model))]
    scores = []
    with torch.no_grad():
        for batch in task.test.loader(BATCH):
            scores.append(task.score(next(iter(call(module, batch.inputs).values())), batch.targets))
    ratio = latency_ratio(*files)
    macs = torch_macs(module, whole.example) / torch_macs(whole.module, whole.example)
    return Outcome(macs, float(torch.cat(scores).float().mean()), ratio.value if ratio else float("nan"))


def rows(net: Net, task: Task, seed: int, given: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Outcome]]:
    """Each way and what it came to."""
    whole, by_macs = ours(net, {"macs": given.share}, seed, given, folder)
    yield "whole", outcome(whole.module, whole, task, folder)
    yield "torch-pruning", outcome(theirs(net, whole, task, seed, given), whole, task, folder)
    yield f"macs: {given.share:g}", outcome(by_macs.module, whole, task, folder)
    _, by_latency = ours(net, {"latency": given.latency}, seed, given, folder)
    yield f"latency: {given.latency:g}", outcome(by_latency.module, whole, task, folder)


def main() -> None:
    """Read the command line, and print a row a seed and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=["digits", "cifar10"], default="digits")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, help="examples of each split at most, for a trial")
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"))
    parser.add_argument("--weights", type=Path, default=Path("resnet20.th"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    net = net_of(given)
    arguments = {name: value for name, value in net.task.items() if name != "use"}
    reference = Reference(use=net.task["use"], arguments=arguments, folder=CONFIGS / net.folder)
    task = build_task(reference, given.limit)
    print("| seed | way | MACs | accuracy | latency |\n|---|---|---|---|---|")
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for way, row in rows(net, task, seed, given, Path(folder)):
                print(f"| {seed} | {way} | {row.macs:.3f} | {row.accuracy:.4f} | {row.latency:.2f} |", flush=True)


if __name__ == "__main__":
    main()
