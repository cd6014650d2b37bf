"""Every kind of pruning on every architecture: what is left is saved, exported and quantized; or it is refused."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from pipeline.base.formatting import bytes_text
from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.errors import ConfigError, StageError
from pipeline.measure.cost import torch_macs, torch_params
from pipeline.model import Model, OnnxModel, TorchModel, call
from pipeline.run.roundtrip import save_exactly
from pipeline.runner import run
from pipeline.stage import Stage
from stages.prune.channels import ChannelPruning
from stages.prune.layers import LayerPruning
from stages.prune.lowrank import LowRankFactorization
from stages.prune.transformers import TransformerPruning
from stages.prune.weights import WeightPruning
from stages.quantize.static import StaticQuantization
from tests import chain_nets
from tests.conftest import deploy
from tests.contexts import context_of
from tests.pruned_nets import NETS

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
STAGES: dict[str, Callable[..., Stage]] = {
    "channels": lambda share: ChannelPruning(macs=share, round_to=1),
    "transformers": lambda share: TransformerPruning(macs=share, round_to=1),
    "layers": lambda share: LayerPruning(params=0.95),
    "lowrank": lambda share: LowRankFactorization(params=min(share + 0.1, 0.95), round_to=1),
    "weights": lambda share: WeightPruning(sparsity=0.5, method="wanda"),
}
SHARES = {"LSTM": 0.85, "GRU": 0.85}
"""Of what stays, where it is not 0.7: most is in the recurrent cell, which has no factors."""
BY_HAND = "attention by hand", "grouped queries"
BLOCKLESS = "residual and depthwise", "U-Net", "DenseNet", "LSTM", "GRU", *BY_HAND
HEADLESS = "residual and depthwise", "U-Net", "DenseNet", "LSTM", "GRU", "ConvNeXt", "TCN", "MLP-Mixer"
REFUSED = {(name, "layers"): "no block can be left out" for name in BLOCKLESS} | {
    **{(name, "transformers"): "no head of attention can leave" for name in HEADLESS},
    ("GPT-2", "channels"): "no layer can lose channels",
    ("GPT-2", "lowrank"): "the cost is still",
    ("GPT-2", "weights"): "all weights stay as they are",
}
"""Networks without blocks of their own that give the shape that they read; and layers of a class of their library's."""
FALLING = ("prune.layers", "prune.channels", "prune.lowrank", "quantize.static", "quantize.pack")
"""Stages whose file is smaller than the one before."""

CLOSE = 1e-4
"""How far a file may be from the module."""
ROUGHLY = {("DeiT", "channels"): 0.25}
"""How far an int8 form, as share of the range, where it is not 0.15: weights are random, a narrow stream is noisy."""


@pytest.fixture
def model(architecture: str) -> TorchModel:
    torch.manual_seed(0)
    builder = Reference(use="pruned_nets.py:net", arguments={"name": architecture}, folder=HERE)
    inputs = next(iter(getattr(chain_nets, NETS[architecture][1])().test.loader(2))).inputs
    return TorchModel.build(builder, inputs)


@pytest.fixture
def reports() -> dict[str, Any]:
    return {}


@pytest.fixture
def ctx(architecture: str, tmp_path: Path, reports: dict[str, Any]) -> Context:
    def deployed(model: Model) -> OnnxModel:
        return model if isinstance(model, OnnxModel) else deploy(model, tmp_path / f"{id(model)}.onnx")

    task = getattr(chain_nets, NETS[architecture][1])()
    return context_of(task, tmp_path, report=reports.__setitem__, deployed=deployed)


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("architecture", NETS)
def test_what_is_left_runs_everywhere(kind, architecture, model, ctx, reports, tmp_path):
    stage = STAGES[kind](SHARES.get(architecture, 0.7))
    if (architecture, kind) in REFUSED:
        with pytest.raises((ConfigError, StageError), match=REFUSED[architecture, kind]):
            [*stage.reach(model)]
        return
    assert [*stage.reach(model)]  # the plan says what it would change
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    pruned = stage.run(model, ctx)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert reports
    if kind == "channels" and architecture in ("LSTM", "GRU"):
        assert pruned.module.rnn.hidden_size < model.module.rnn.hidden_size
    assert kind != "weights" or reports["sparsity"]["achieved"] == pytest.approx(0.5, abs=0.01)
    prove_smaller(kind, model, pruned)
    save_exactly(pruned, tmp_path / "saved", HERE)
    prove_answers(pruned, ctx, ROUGHLY.get((architecture, kind), 0.15))


def prove_smaller(kind: str, before: TorchModel, after: TorchModel) -> None:
    if kind == "weights":
        before_zeros, zeros = (sum(int((p == 0).sum()) for p in m.module.parameters()) for m in (before, after))
        assert zeros > before_zeros
        return
    costs = [torch_macs(m.module, m.example) + torch_params(m.module) for m in (before, after)]
    assert costs[1] < costs[0]


def prove_answers(pruned: TorchModel, ctx: Context, roughly: float) -> None:
    """Its file answers as it does, and in int8 nearly so."""
    inputs = next(iter(ctx.calibration.loader(16))).inputs
    file = deploy(pruned, ctx.directory / "pruned.onnx")
    with torch.no_grad():
        (answers,) = call(pruned.module, inputs).values()
    (deployed,) = file.predict(inputs).values()
    assert torch.allclose(answers, deployed, atol=CLOSE)
    integers = StaticQuantization().run(file, ctx)
    (rounded,) = integers.predict(inputs).values()
    span = float(answers.max() - answers.min())
    assert float((rounded - answers).abs().max()) < roughly * span
    assert any(node.op_type == "DequantizeLinear" for node in onnx.load(integers.path).graph.node)


def test_all_kinds_and_integers_on_one_network_tell_their_bytes(tmp_path):
    """Each stage's bytes stand in the record and in the report, and fall where something leaves."""
    recovery = {"epochs": 2, "batch_size": 32, "learning_rate": 0.003, "teacher": "labels"}
    stages = [
        {"use": "prune.layers", "blocks": 1, "recovery": recovery},
        {"use": "prune.channels", "macs": 0.7, "round_to": 4, "recovery": recovery},
        {"use": "prune.lowrank", "params": 0.85, "round_to": 4, "recovery": recovery},
        {"use": "prune.weights", "sparsity": 0.6, "recovery": recovery},
        {"use": "export.onnx"},
        {"use": "quantize.static"},
        {"use": "quantize.pack"},
    ]
    keys = {
        "task": {"use": "chain_nets.py:images"},
        "model": {"use": "pruned_nets.py:net", "name": "ConvNeXt"},
        "baseline": [{"use": "train.supervised", "epochs": 4, "batch_size": 32, "learning_rate": 0.003}],
        "stages": stages,
    }
    record = run(keys, folder=HERE, runs=tmp_path, track=False)
    assert record.baseline
    sizes = {stage.name: stage.size_bytes for stage in record.stages}
    falling = [record.baseline.size_bytes, *(sizes[name] for name in FALLING)]
    assert all(after < before for before, after in pairwise(falling)), falling
    assert sizes["prune.weights"] == sizes["prune.lowrank"] == sizes["export.onnx"]  # zeros take bytes until packed
    folder = Path(record.folder)
    weights = [onnx.load(folder / stage.file).graph.initializer for stage in record.stages[-2:-1]]
    zeros = sum(int((onnx.numpy_helper.to_array(t) == 0).sum()) for some in weights for t in some if len(t.dims) > 1)
    assert zeros > 1000  # they outlive the training behind them, the export and the rounding
    page = (folder / "report.html").read_text()
    assert all(bytes_text(size) in page for size in sizes.values())
