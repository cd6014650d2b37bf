"""What narrower groups do to the answers, beside channels that are made zero by hand, and the allocation by it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.measure.agreement import kl_divergence
from pipeline.model import TorchModel
from stages.prune.allocation.effects import RATIOS, Answers, by_effect, effects
from stages.prune.allocation.search import kept, removed
from stages.prune.channels import ChannelPruning
from stages.prune.coupling.engine import Coupled, couplings
from stages.prune.coupling.parts import Place
from stages.prune.sensitivity import PruningSensitivity
from tests.stages.prune.prune_nets import built, context


def zeroed(module: nn.Module, name: str, channels: list[int]) -> nn.Module:
    other = copy.deepcopy(module)
    layer: Any = other.get_submodule(name)
    layer.weight.data[channels] = 0
    layer.bias.data[channels] = 0
    return other


def answers(module: nn.Module, ctx: Any) -> torch.Tensor:
    inputs = torch.cat([batch.inputs["input"] for batch in ctx.calibration.loader(64)])[:64]
    with torch.no_grad():
        return module.eval()(inputs)


def test_an_effect_is_that_of_channels_that_give_nothing(tmp_path: Any) -> None:
    model, ctx = built("prune_nets.py:PlainNet"), context(tmp_path, {})
    groups = couplings(model.module, model.example).groups
    assert [group.root for group in groups] == ["one", "two"]
    rows = list(effects(model, groups, RATIOS, ctx, examples=64))
    before = answers(model.module, ctx)
    for group, row in zip(groups, rows, strict=True):
        for ratio, measured in zip(RATIOS, row, strict=True):
            gone = removed(group, round(len(group.scores) * (1 - ratio)))
            after = answers(zeroed(model.module, group.root, gone), ctx)
            assert measured == pytest.approx(
                16 * float(kl_divergence(before / 4, after / 4, ctx.labelling).mean()), rel=1e-3
            )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_answers_of_half_precision_are_compared_too(tmp_path: Any, dtype: torch.dtype) -> None:
    class Half(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.to(dtype))

    module, ctx = built("prune_nets.py:PlainNet").module, context(tmp_path, {})
    changed = zeroed(module, "two", [*range(16)])
    change = Answers(module, ctx, 64).change(changed)
    assert change > 0
    before = Answers(Half(copy.deepcopy(module).to(dtype)), ctx, 64)
    assert before.change(Half(changed.to(dtype))) == pytest.approx(change, rel=0.1)


def test_channels_ranked_by_effect_leave_each_group_as_far_as_it_bears_it() -> None:
    channels = torch.arange(64)
    groups = [
        Coupled(n, (n,), 1, torch.rand(64, generator=torch.Generator().manual_seed(i)), {Place(n, "out"): channels})
        for i, n in enumerate("ab")
    ]
    firm, frail = [1e-6, 1e-5, 1e-4], [1e-4, 1e-2, 1.0]  # the first bears at 0.75 what the second bears at 0.25
    rescored = by_effect(groups, [firm, frail], RATIOS)
    for old, new in zip(groups, rescored, strict=True):
        assert torch.equal(torch.argsort(old.scores), torch.argsort(new.scores))
    counts = kept(rescored, 0.5, "sensitivity", 1)
    assert counts == pytest.approx((16, 48), abs=1)
    # at any ratio the effects at which both stop are alike
    for ratio in (0.3, 0.4, 0.6):
        a, b = (1 - count / 64 for count in kept(rescored, ratio, "sensitivity", 1))
        at = [float(np.interp(share, RATIOS, np.log(row))) for share, row in ((a, firm), (b, frail))]
        assert at[0] == pytest.approx(at[1], abs=0.7) or a > RATIOS[-1] or b < RATIOS[0]


@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], [0.2, 0.1, 0.1], [1e-9, 1e-3, 1e-3]])
def test_channels_of_which_more_do_no_more_leave_in_the_same_order(row: list[float]) -> None:
    scores = torch.rand(512, generator=torch.Generator().manual_seed(0))
    group = Coupled("a", ("a",), 1, scores, {Place("a", "out"): torch.arange(512)})
    (rescored,) = by_effect([group], [row], RATIOS)
    assert len(rescored.scores.unique()) == 512
    assert torch.equal(torch.argsort(rescored.scores), torch.argsort(scores))


class Sensitive(nn.Module):
    """Two hidden layers of which the first has channels to spare and the second none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spare, self.needed, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)
        self.spare.weight.data[16:] = self.spare.weight.data[:16].repeat(3, 1) * 1e-3
        self.spare.bias.data[16:] = 0
        self.spare.weight.data[16:] *= 0.1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.needed(torch.relu(self.spare(x.flatten(1))))))


def test_scope_sensitivity_takes_from_the_layer_that_bears_it(tmp_path: Any) -> None:
    model = built("test_effects.py:Sensitive", folder=Path(__file__).parent)
    before = answers(model.module, context(tmp_path, {}))
    divergences = {}
    for scope in ("uniform", "sensitivity"):
        reports: dict[str, Any] = {}
        ctx = context(tmp_path / scope, reports)
        pruned: TorchModel = ChannelPruning(params=0.55, scope=scope).run(model, ctx)
        assert reports["pruning"]["achieved"] <= 0.55
        divergences[scope] = float(kl_divergence(before, answers(pruned.module, ctx), ctx.labelling).mean())
        if scope == "sensitivity":
            channels = reports["pruning"]["channels"]
            assert channels["spare"]["after"] < channels["needed"]["after"]
    assert divergences["sensitivity"] < 0.5 * divergences["uniform"]


def test_the_stage_reports_each_group_and_gives_the_same_model(tmp_path: Any) -> None:
    reports: dict[str, Any] = {}
    model = built("prune_nets.py:PlainNet")
    assert PruningSensitivity(examples=16).run(model, context(tmp_path, reports)) is model
    layers = reports["sensitivity"]["layers"]
    assert [(row["layer"], row["elements"]) for row in layers] == [("one", 16), ("two", 32)]
    assert all([*row["effects"]] == ["0.25", "0.5", "0.75"] for row in layers)
