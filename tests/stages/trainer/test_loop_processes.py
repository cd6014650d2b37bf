"""Training over two processes is the training of one: the same batches, the same losses, the same weights."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import TCPStore, destroy_process_group  # type: ignore[attr-defined]
from torch.nn import functional as F

from pipeline.base.batches import Outputs
from pipeline.base.world import ALONE, FOR_EVER, World, join
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.model import TorchModel
from pipeline.task import Batch
from stages.trainer import checkpoint
from stages.trainer.loop import TrainingSettings, train
from stages.trainer.objective import Objective, Progress, Supervised, first
from stages.trainer.zeros import USE
from tests.aliases import Make, Patch
from tests.contexts import bare_context, saved_tiny
from tests.forked import PATIENCE, start
from tests.trained import weights

SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": 0.05, "optimizer": "sgd"}


class Watched(Objective):
    """The task's loss and that of an adapter on the logits; notes which examples it was shown."""

    def __init__(self, ctx: Context) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.hard, self.adapter, self.shown = Supervised(ctx), nn.Linear(4, 3), list[list[int]]()

    def forward(self, batch: Batch, outputs: Outputs, moment: Progress) -> Tensor:
        self.shown.append(batch.index.tolist())
        labels: Tensor = self.hard(batch, outputs, moment)
        if moment.epoch == 1:  # where it counts for nothing, processes must not wait for its gradients
            return labels
        aim = batch.inputs["input"].mean((2, 3)).expand(-1, 3)
        return labels + F.mse_loss(self.adapter(first(outputs)), aim)


def trained(world: World, model: TorchModel, ctx: Context, settings: dict[str, Any]) -> dict[str, Any]:
    """Weights, adapter, examples and reports of a training in one process of `world`."""
    reports: dict[str, Any] = {}
    objective = Watched(ctx)
    ctx = replace(ctx, world=world, report=reports.__setitem__)
    made = train(model, objective, TrainingSettings(**{**SETTINGS, **settings}), ctx)
    adapter = nn.utils.parameters_to_vector(objective.adapter.parameters()).detach()
    return {"weights": weights(made), "adapter": adapter, "shown": objective.shown, "history": reports["training"]}


def other(rank: int, port: int, folder: Path, directory: Path, settings: dict[str, Any]) -> None:
    shared = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in shared.items()})
    world = join(TCPStore("127.0.0.1", port, 2, is_master=False, timeout=FOR_EVER), rank, 2)
    noted(folder / "writers")
    torch.save(trained(world, saved_tiny(folder / "model"), bare_context(directory), settings), folder / f"{rank}.pt")
    destroy_process_group()


def noted(file: Path) -> None:
    """Have this process note its rank where it writes a checkpoint."""

    def watched(real: Make) -> Make:
        def write(*args: Any) -> Any:
            with file.open("a") as ranks:
                ranks.write(os.environ["RANK"])
            return real(*args)

        return write

    checkpoint.save = watched(checkpoint.save)
    checkpoint.keep = watched(checkpoint.keep)


def in_two(model: TorchModel, ctx: Context, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """What each of two processes gives, in the context's directory."""
    model.save(folder / "model")
    store = TCPStore("127.0.0.1", 0, 2, is_master=True, timeout=FOR_EVER, wait_for_workers=False)
    children = [start(other, rank, store.port, folder, ctx.directory, settings) for rank in range(2)]
    for child in children:
        child.join(PATIENCE)
    assert [child.exitcode for child in children] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def near(ours: dict[str, Any], theirs: dict[str, Any], atol: float = 1e-5) -> None:
    for name in ("weights", "adapter"):
        torch.testing.assert_close(ours[name], theirs[name], atol=atol, rtol=0)
    for a, b in zip(ours["history"], theirs["history"], strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_two_processes_do_what_one_does_and_the_same_again(tiny: Make, context: Make, tmp_path: Path) -> None:
    alone = trained(ALONE, tiny(), context(), {})
    assert not torch.allclose(alone["weights"], weights(tiny()), atol=1e-2)
    both = in_two(tiny(), context(), tmp_path)
    assert [a + b for a, b in zip(both[0]["shown"], both[1]["shown"], strict=True)] == alone["shown"]
    for one in both:
        near(one, alone)
    assert torch.equal(both[0]["weights"], both[1]["weights"])
    assert both[0]["history"] == both[1]["history"]
    again = in_two(tiny(), context(), tmp_path)
    assert torch.equal(again[0]["weights"], both[0]["weights"])
    assert again[0]["history"] == both[0]["history"]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_batch_in_parts_gives_the_same_weights(tiny: Make, context: Make, tmp_path: Path, processes: int) -> None:
    alone = trained(ALONE, tiny(), context(), {})
    if processes == 1:
        one = trained(ALONE, tiny(), context(), {"accumulate": 4})
    else:
        one, _ = in_two(tiny(), context(), tmp_path, accumulate=4)
    assert len(one["shown"]) == 4 * len(alone["shown"])
    near(one, alone)


def test_rank_0_alone_writes_and_zeros_are_held_in_all(tiny: Make, context: Make, tmp_path: Path) -> None:
    model = tiny().edited(USE, weights=["conv2.weight", "head.weight"])
    model.module.conv2.weight.data[:, ::2] = 0
    model.module.head.weight.data[1] = 0
    both = in_two(model, context(), tmp_path)
    assert set((tmp_path / "writers").read_text()) == {"0"}
    zeros = weights(model) == 0
    assert 0 < zeros.sum() < len(zeros)
    assert all(torch.equal(one["weights"] == 0, zeros) for one in both)


def test_a_batch_that_cannot_be_divided_is_refused(tiny: Make, context: Make) -> None:
    with pytest.raises(StageError, match="a batch of 32 cannot be split into 3 equal parts"):
        trained(World(0, 3), tiny(), context(), {})


def test_a_stage_that_is_not_for_all_cannot_train_beside_others(tiny: Make, context: Make, monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(StageError, match="it trains, and is not `distributed`"):
        trained(ALONE, tiny(), context(), {})
