"""What training would end in, or would not change, is told by plan and run before it begins, and tried once."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from pipeline.build.build import build
from pipeline.build.source import load_config
from pipeline.deploy import deploy
from pipeline.errors import ConfigError, Note, StageError
from pipeline.model import OnnxModel, TorchModel
from pipeline.run import foresight
from pipeline.run.plan import as_json
from pipeline.run.store.store import Store
from pipeline.runner import run
from tests.aliases import Logs, Make, Patch
from tests.users import chain_of

MODELS = """
import torch
from torch import nn

class Checked(nn.Sequential):
    def forward(self, x):
        assert not x.isnan().any()
        return super().forward(x)

def checked():
    return Checked(nn.Flatten(), nn.Linear(64, 4))

def one():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

def net(width=32):
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 16), nn.ReLU(), nn.Linear(16, 4)
    )

def deep():
    widths = (64, 256, 256, 64, 64, 4)
    layers = [part for i in range(5) for part in (nn.Linear(widths[i], widths[i + 1]), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.up, self.head = nn.Linear(8, 32), nn.Linear(32, 64), nn.Linear(64, 4)

    def forward(self, x):
        x = self.qkv(x.squeeze(1)).view(-1, 8, 4, 8).mean(1).flatten(1)
        return self.head(torch.relu(self.up(x)))

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(32, 32), nn.ReLU())

    def forward(self, x):
        return x + self.inner(x)

def blocks():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Sequential(Block(), Block(), Block()), nn.Linear(32, 4))

class Aux(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head, self.aux = nn.Conv2d(1, 16, 3), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        x = self.conv(x).relu().amax((2, 3))
        return self.head(x) + self.aux(x) if self.training else self.head(x)
"""
TRAINED = "train.supervised, epochs: 1"


def chain(model: str, *stages: str, baseline: str = TRAINED) -> str:
    return chain_of(*stages, model=f"use: models.py:{model}", baseline=baseline)


@pytest.mark.parametrize(("text", "where", "message"), [
    (chain("checked", "export.onnx"), "model: ONNX export", r"values of a tensor in models\.py:7, `assert not"),
    (chain("one", "prune.channels, params: 0.5"), "stages[0] (prune.channels)", "no layer can lose channels"),
    (chain("net", "prune.channels, macs: 0.02"), "stages[0] (prune.channels): target macs: 0.02",
     "the cost is still .* with all channels removed that can be"),
    (chain("net", "prune.channels, params: 0.5, ignore: ['5.*']"), "stages[0] (prune.channels)", "`5.*`, which the mo"),
    (chain("one", "export.onnx", "quantize.dynamic, operators: [Conv]"), "stages[1] (quantize.dynamic)",
     "the nodes with weights are 1 Gemm, and none of them would be quantized"),
    (chain("net", "prune.channels, params: 0.5", "quantize.aware, layers: {'9': 4}"), "stages[1] (quantize.aware)",
     "`layers` names `9`"),
    (chain("one", "distill.logits, student: {use: models.py:checked}, epochs: 1", "export.onnx"),
     "stages[1] (export.onnx): ONNX export", "values of a tensor"),
])  # fmt: skip
def test_what_would_fail_after_training_is_refused_before_it(
    project: Make, text: str, where: str, message: str
) -> None:
    path = project(text, **{"models.py": MODELS})
    with pytest.raises(ConfigError, match=message) as refusal:
        run(path, runs=path.parent / "runs", track=False)
    assert refusal.value.where == where
    assert [file.name for file in path.parent.glob("runs/*")] == ["store"]


def test_a_target_of_a_model_that_was_pruned_before_is_not_known_before(project: Make) -> None:
    stages = "prune.channels, macs: 0.15, ignore: ['5', '7']", "prune.channels, macs: 0.6, ignore: ['1', '3']"
    path = project(chain("deep", stages[1]), **{"models.py": MODELS})
    store = Store(path.parent / "store")
    with pytest.raises(ConfigError, match=r"stages\[0\] \(prune.channels\): target macs: 0.6: the cost is still"):
        as_json(build(*load_config(path)), store)
    path = project(chain("deep", *stages), **{"models.py": MODELS})
    as_json(build(*load_config(path)), store)
    record = run(path, runs=path.parent / "runs", track=False)
    first, second = (made.macs for made in record.stages)
    assert second <= 0.6 * first


def test_the_reach_of_each_stage_is_told_and_tried_once(project: Make, monkeypatch: Patch) -> None:
    stages = "prune.channels, params: 0.5, ignore: ['[3-9]']", "export.onnx", "quantize.dynamic"
    path = project(chain("net", *stages), **{"models.py": MODELS})
    store, built = Store(path.parent / "store"), build(*load_config(path))
    plan = as_json(built, store)
    assert {
        "stages[0] (prune.channels): channels leave 1 layer (`0`)",
        "stages[2] (quantize.dynamic): quantizes 2 Gemm (`3.weight`, `5.weight`); 1 Conv (`0.weight`) stays in fp32",
    } <= {*plan["notes"]}
    monkeypatch.setattr(foresight, "deploy", None)
    again = foresight.foreseen(build(*load_config(path)), store)
    assert [*again.notes] == plan["notes"]
    assert all(isinstance(note, Note) for note in again.notes)


def test_layers_behind_those_that_may_leave_are_checked_and_nodes_of_their_file_are_not(project: Make) -> None:
    def plan(*behind: str) -> str:
        path = project(chain("blocks", "prune.layers, blocks: 1", *behind), **{"models.py": MODELS})
        return " ".join(as_json(build(*load_config(path)), Store(path.parent / "store"))["notes"])

    assert "stages[0] (prune.layers): can be left out: 3 blocks (`2.0`, `2.1`, `2.2`)" in plan()
    with pytest.raises(ConfigError, match=r"stages\[1\] \(prune.channels\): `ignore` names `none`"):
        plan("prune.channels, macs: 0.5, ignore: ['none']")
    assert "stages[2]" not in plan("export.onnx", "quantize.half, fp32: [node_linear_2]")


def test_a_model_is_exported_as_the_stage_will(project: Make, monkeypatch: Patch) -> None:
    def fussy(model: TorchModel, path: Path, opset: int) -> OnnxModel:
        if opset == 18:
            raise StageError("not in 18")
        return deploy(model, path, opset)

    monkeypatch.setattr(foresight, "deploy", fussy)
    path = project(chain("net", "export.onnx, opset: 18"), **{"models.py": MODELS})
    with pytest.raises(ConfigError, match=r"stages\[0\] \(export.onnx\): not in 18"):
        as_json(build(*load_config(path)), Store(path.parent / "store"))


def test_what_goes_wrong_in_the_store_is_not_blamed_on_the_config(project: Make, monkeypatch: Patch) -> None:
    path = project(chain("net", "prune.channels, params: 0.5"), **{"models.py": MODELS})
    built = build(*load_config(path))
    with pytest.raises(ConfigError, match=r"the folder for runs, .*models\.py/runs: NotADirectoryError.* with --runs"):
        as_json(built, Store(path.parent / "models.py" / "runs" / "store"))
    monkeypatch.setattr(Store, "commit", Mock(side_effect=RuntimeError("ours")))
    with pytest.raises(RuntimeError, match="ours"):
        as_json(built, Store(path.parent / "store"))


def test_what_is_said_before_work_is_not_said_again(project: Make) -> None:
    path = project(chain("Aux", "prune.channels, channels: 0.6"), **{"models.py": MODELS})
    record = run(path, runs=path.parent / "runs", track=False)
    assert len([text for text in record.warnings if "not run in evaluation mode" in text]) == 1


def test_a_note_of_before_work_is_in_the_log_once_and_in_the_record(project: Make, caplog: Logs) -> None:
    path = project(chain("Fixed", "prune.channels, macs: 0.8"), **{"models.py": MODELS})
    with caplog.at_level("INFO", "shrinkline"):
        record = run(path, runs=path.parent / "runs", track=False)
    note = "stages[0] (prune.channels): all channels stay of 1 layer (`qkv`): "
    assert sum(text.startswith(note) for text in record.notes) == 1
    assert sum(note in entry.getMessage() for entry in caplog.records) == 1


def test_what_a_stage_of_a_users_makes_of_the_layers_is_not_guessed(project: Make) -> None:
    path = project(chain("one", "mine.py", "prune.channels, params: 0.5"), **{"models.py": MODELS, "mine.py": MINE})
    assert as_json(build(*load_config(path)), Store(path.parent / "store"))["notes"] == []


@pytest.mark.parametrize(("kind", "message"), [
    (torch.float64, "`conv1.weight` is float64, in which ONNX Runtime does not run all of .*; expected float32"),
    (torch.float32, "RuntimeError: no such kernel"),
])  # fmt: skip
def test_types_that_the_runtime_does_not_run_are_told(tiny: Make, kind: torch.dtype, message: str) -> None:
    model = tiny()
    model.module.to(kind)
    deployed = Mock(**{"predict.side_effect": RuntimeError("no such kernel")})
    with pytest.raises(StageError, match=message):
        foresight._run(deployed, model)
    deployed.close.assert_called_once()


MINE = """
from pipeline.model import TorchModel
from pipeline.context import Context
from pipeline.stage import Stage

class Mine(Stage):
    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        return model
"""
