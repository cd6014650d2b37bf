"""Importances beside torch-pruning's, and in closed form."""

import copy
from typing import get_args

import pytest
import torch
from torch import nn

from pipeline.errors import StageError
from stages.prune.allocation.importance import MEASURES, Importance, has_measure, lamp, with_importance
from stages.prune.allocation.signals import gradients
from stages.prune.allocation.slices import slices
from stages.prune.coupling.coupled import Coupled
from stages.prune.coupling.engine import couplings
from stages.prune.coupling.parts import Place
from tests.stages.prune.prune_nets import built, context


def scored(model, ctx, importance):
    groups = couplings(model.module, model.example).groups
    return {group.root: group.scores for group in with_importance(groups, model, importance, ctx)}


@pytest.mark.parametrize("importance", ["magnitude", "l1", "taylor"])
def test_they_are_torch_prunings(importance, tmp_path):
    import torch_pruning as tp

    model, ctx = built("prune_nets.py:PlainNet"), context(tmp_path, {})
    reference = {
        "magnitude": tp.importance.GroupMagnitudeImportance(p=2),
        "l1": tp.importance.GroupMagnitudeImportance(p=1),
        "taylor": tp.importance.GroupTaylorImportance(),
    }[importance]
    module = gradients(model, ctx)
    graph = tp.DependencyGraph().build_dependency(module, model.example["input"])
    scores = scored(model, ctx, importance)
    for name in ("one", "two"):
        layer = module.get_submodule(name)
        group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, [*range(layer.out_channels)])
        assert torch.allclose(scores[name], reference(group), rtol=1e-4)


def test_scores_have_mean_one_and_find_the_zeroed_channel(tmp_path):
    model = built("prune_nets.py:PlainNet")
    with torch.no_grad():
        model.module.two.weight[7] = 0
        model.module.head.weight[:, 28:32] = 0  # its four places after the pooling
    scores = scored(model, context(tmp_path, {}), "magnitude")["two"]
    assert float(scores.mean()) == pytest.approx(1)
    assert (scores == 0).nonzero().flatten().tolist() == [7]


def test_distances_are_to_all_other_filters(tmp_path):
    model = built("prune_nets.py:PlainNet")
    filters = model.module.one.weight.detach().flatten(1)
    sums = torch.tensor([sum(float((one - other).norm()) for other in filters) for one in filters])
    assert torch.allclose(scored(model, context(tmp_path, {}), "fpgm")["one"], sums / sums.mean(), rtol=1e-3)


def test_lamp_is_a_share_of_what_matters_more():
    assert lamp(torch.tensor([1.0, 4.0, 3.0])).tolist() == pytest.approx([1 / 8, 1.0, 3 / 7])


def test_activation_forgets_what_is_never_on(tmp_path):
    model = built("prune_nets.py:PlainNet")
    with torch.no_grad():
        model.module.one.bias.fill_(1)
        model.module.one.bias[[2, 5]] = -100
    scores = scored(model, context(tmp_path, {}), "activation")["one"]
    assert (scores == 0).nonzero().flatten().tolist() == [2, 5]


def test_hessian_is_squares_of_weights_and_gradients(tmp_path):
    model, ctx = built("prune_nets.py:PlainNet"), context(tmp_path, {})
    squares = {"one": 0, "two": 0}
    for batch in ctx.calibration.loader(1):
        loss = ctx.loss({"output": model.module(batch.inputs["input"])}, batch.targets)
        for name in squares:
            squares[name] += (
                torch.autograd.grad(loss, model.module.get_submodule(name).weight, retain_graph=True)[0] ** 2
            )
    out, into = ((squares[n] * model.module.get_submodule(n).weight.detach() ** 2) for n in squares)
    both = out.sum((1, 2, 3)) + into.sum((0, 2, 3))
    assert torch.allclose(scored(model, ctx, "hessian")["one"], both / both.mean(), rtol=1e-3)


def test_scales_are_those_of_the_norm(tmp_path):
    model = built("prune_nets.py:MobileNet")
    with torch.no_grad():
        model.module.norm.weight.copy_(-torch.arange(48.0))
    groups = [g for g in couplings(model.module, model.example).groups if has_measure(g, model.module, "batch_norm")]
    (group,) = with_importance(groups, model, "batch_norm", context(tmp_path, {}))
    assert group.root == "expand"
    assert group.scores.tolist() == pytest.approx((torch.arange(48.0) / 23.5).tolist())


def test_random_ones_go_by_the_seed(tmp_path):
    model = built("prune_nets.py:PlainNet")
    first, again, other = (scored(model, context(tmp_path, {}, seed=seed), "random")["one"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 4, 3, groups=2), nn.ConvTranspose1d(6, 4, 3, groups=2), nn.Linear(6, 4),
                                   nn.Conv2d(6, 6, 3, groups=6)])  # fmt: skip
@pytest.mark.parametrize("side", ["in", "out"])
def test_a_channel_has_what_gives_or_reads_it(layer, side):
    """Its slice is not zero exactly where the gradient of what goes through it is not."""
    layer = copy.deepcopy(layer)
    x = torch.rand(2, 6, *[5] * (layer.weight.ndim - 2))
    is_depthwise = getattr(layer, "groups", 1) == 6
    for channel in range(6 if side == "in" or is_depthwise else 4):
        mask = torch.zeros(6 if side == "in" else len(layer(x)[0]))
        mask[channel] = 1
        shape = (-1, *[1] * (x.ndim - 2))
        out = layer(x * mask.view(shape)) if side == "in" else layer(x) * mask.view(shape)
        (gradient,) = torch.autograd.grad(out.sum(), layer.weight)
        parts = slices(layer, Place("layer", side), (gradient != 0).float())
        if not (is_depthwise and side == "in"):  # whose inputs are told by its outputs
            assert parts[channel].all()
            assert parts.sum() == parts[channel].sum()


@pytest.mark.parametrize("importance", sorted({*get_args(Importance)} - {"random", "activation"}))
def test_weights_that_are_not_finite_are_refused(importance, tmp_path):
    model = built("prune_nets.py:PlainNet")
    with torch.no_grad():
        model.module.one.weight[0, 0, 0, 0] = float("nan")
    groups = couplings(model.module, model.example).groups
    if all(has_measure(group, model.module, importance) for group in groups):
        with pytest.raises(StageError, match="importance of `one` is not finite"):
            with_importance(groups, model, importance, context(tmp_path, {}))
    else:
        assert importance == "batch_norm"


def test_what_no_layer_reads_has_no_activation(tmp_path):
    group = Coupled("one", ("one",), 1, torch.ones(16), {Place("one", "out"): torch.arange(16)})
    with pytest.raises(StageError, match="no layer that reads the channels of `one` runs"):
        with_importance([group], built("prune_nets.py:PlainNet"), "activation", context(tmp_path, {}))


def test_each_has_a_measure_or_reads_on_its_own():
    assert {*get_args(Importance)} == {*MEASURES, "activation", "random"}
