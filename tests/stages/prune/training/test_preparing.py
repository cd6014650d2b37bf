"""The group lasso before a cut, in closed form and in a training."""

import pytest
import torch

from pipeline.errors import ConfigError, StageError
from stages.prune.channels import ChannelPruning
from stages.prune.coupling.engine import couplings
from stages.prune.coupling.parts import known
from stages.prune.training import preparing
from stages.prune.training.preparing import Preparation, Sparse, penalty
from stages.trainer.objective import Objective, Progress
from tests.stages.prune.prune_nets import built, context


@pytest.fixture
def net():
    return built("prune_nets.py:PlainNet")


class Zero(Objective):
    def forward(self, batch, outputs, progress):
        return torch.zeros(())


def squares(module):
    """(16,) of what gives each channel of `one` and what reads it."""
    return module.one.weight.square().sum((1, 2, 3)) + module.two.weight.square().sum((0, 2, 3))


def test_the_penalty_is_half_of_the_squares_by_factors(net):
    group = couplings(net.module, net.example).groups[0]
    norms = squares(net.module).detach().sqrt()
    factors = 2 ** (4 * (norms.max() - norms) / (norms.max() - norms.min()))
    assert float(factors.max()) == pytest.approx(16)
    assert float(penalty(group, known(net.module), 4)) == pytest.approx(float((factors * norms**2).sum() / 2), rel=1e-4)
    assert float(penalty(group, known(net.module), 0)) == pytest.approx(float((norms**2).sum() / 2), rel=1e-4)
    (gradient,) = torch.autograd.grad(penalty(group, known(net.module), 4), net.module.one.weight)
    assert torch.allclose(gradient, factors.view(-1, 1, 1, 1) * net.module.one.weight, rtol=1e-3, atol=1e-6)


def test_it_rises_with_the_steps_that_are_done(net):
    groups = couplings(net.module, net.example).groups
    sparse = Sparse(Zero(), groups, 0.5, 4)
    sparse.watch(net.module)
    whole = sum(float(penalty(group, known(net.module), 4)) for group in groups)
    assert float(sparse(None, {}, Progress(done=0.0))) == 0
    assert float(sparse(None, {}, Progress(done=0.5))) == pytest.approx(0.25 * whole, rel=1e-4)
    assert not [*sparse.parameters()]  # what shrinks is not trained twice


def test_what_has_channels_is_looked_up_once_not_at_each_step(net, monkeypatch):
    calls = []
    monkeypatch.setattr(preparing, "known", lambda module: calls.append(module) or known(module))
    sparse = Sparse(Zero(), couplings(net.module, net.example).groups, 0.5, 4)
    sparse.watch(net.module)
    assert all(float(sparse(None, {}, Progress(done=done))) > 0 for done in (0.2, 0.4))
    assert calls == [net.module]


def test_channels_that_will_leave_become_small(net, tmp_path):
    groups = couplings(net.module, net.example).groups
    reports = {}
    settings = {"epochs": 4, "learning_rate": 5e-3, "batch_size": 32, "teacher": "labels"}
    lasso, plain = (
        Preparation(**settings, strength=strength).prepared([], net, groups, context(tmp_path / str(strength), reports))
        for strength in (0.05, 1e-9)
    )
    low, high = (
        (norms := squares(model.module).detach().sort().values)[:8].sum() / norms.sum() for model in (lasso, plain)
    )
    assert low < 0.7 * high
    assert len(reports["preparation"]) == 4
    assert torch.equal(squares(net.module), squares(built("prune_nets.py:PlainNet").module))


def test_the_stage_prepares_before_it_cuts_and_recovers_after_it(net, tmp_path):
    reports = {}
    training = {"epochs": 1, "batch_size": 64, "teacher": "labels"}
    stage = ChannelPruning(macs=0.5, prepare={**training, "strength": 1e-3}, recovery=training)
    assert [*stage.trainings()] == [(64, 1), (64, 1)]
    small = stage.run(net, context(tmp_path, reports))
    assert [*reports][:1] == ["preparation"]
    assert len(reports["recovery_1"]) == 1
    assert len(small.edits) == 1


def test_layers_that_are_too_narrow_to_be_cut_do_not_shrink(monkeypatch, tmp_path):
    net = built("prune_nets.py:PlainNet", a=8, b=32)
    shrinking = []

    def prepared(self, teachers, model, groups, ctx):
        shrinking.extend(group.root for group in groups)
        return model

    monkeypatch.setattr(Preparation, "prepared", prepared)
    stage = ChannelPruning(macs=0.6, prepare={"epochs": 1, "teacher": "labels"})
    stage.run(net, context(tmp_path, {}))
    assert shrinking == ["two"]
    with pytest.raises(
        StageError, match="no layer can lose channels: `round_to: 8` leaves no smaller width to 2 layers"
    ):
        stage.run(built("prune_nets.py:PlainNet", a=8, b=8), context(tmp_path, {}))


def test_an_importance_that_does_not_see_it_is_refused(net, tmp_path):
    stage = ChannelPruning(macs=0.5, importance="random", prepare={"epochs": 1, "teacher": "labels"})
    with pytest.raises(ConfigError, match="`importance: random` does not see what `prepare` trains"):
        [*stage.check((), context(tmp_path, {}))]
