"""Every kind of pruning on every architecture: what is left is saved, exported and quantized; or it is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from pipeline.base.use import Reference
from pipeline.errors import ConfigError
from pipeline.measure.cost import torch_macs, torch_params
from pipeline.model import Model, OnnxModel, TorchModel, call
from pipeline.run.roundtrip import save_exactly
from pipeline.stage import Context, Stage
from stages.prune.channels import ChannelPruning
from stages.prune.layers import LayerPruning
from stages.prune.lowrank import LowRankFactorization
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
    "layers": lambda share: LayerPruning(params=0.95),
    "lowrank": lambda share: LowRankFactorization(params=min(share + 0.1, 0.95), round_to=1),
    "weights": lambda share: WeightPruning(sparsity=0.5, method="wanda"),
}
SHARES = {"LSTM": 0.99, "GRU": 0.99}
"""Of the MACs that stay, where it is not 0.7: most are in the recurrent cell, whose widths stay."""

BLOCKLESS = {"residual and depthwise", "U-Net", "DenseNet", "LSTM", "GRU"}
"""Networks without blocks of their own that give the shape that they read."""
CLOSE, ROUGHLY = 1e-4, 0.15
"""How far a file may be from the module, and its int8 form as a share of the range: the weights are random."""


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
    if kind == "layers" and architecture in BLOCKLESS:
        with pytest.raises(ConfigError, match="no block can be left out"):
            [*stage.reach(model)]
        return
    assert [*stage.reach(model)]  # the plan says what it would change
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    pruned = stage.run(model, ctx)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert reports
    prove_smaller(kind, model, pruned)
    save_exactly(pruned, tmp_path / "saved", HERE)
    prove_answers(pruned, ctx)


def prove_smaller(kind: str, before: TorchModel, after: TorchModel) -> None:
    if kind == "weights":
        assert sum(int((p == 0).sum()) for p in after.module.parameters()) > 0.2 * torch_params(before.module)
        return
    costs = [torch_macs(m.module, m.example) + torch_params(m.module) for m in (before, after)]
    assert costs[1] < costs[0]


def prove_answers(pruned: TorchModel, ctx: Context) -> None:
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
    assert float((rounded - answers).abs().max()) < ROUGHLY * span
    assert any(node.op_type == "DequantizeLinear" for node in onnx.load(integers.path).graph.node)
