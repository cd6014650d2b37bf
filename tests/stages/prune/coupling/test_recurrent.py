"""Units of recurrent layers: dead ones leave, others in each cell, and what the model gives stays; or all stay."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.deploy import deploy
from pipeline.errors import StageError
from pipeline.run.roundtrip import save_exactly
from stages.prune.allocation.search import lost
from stages.prune.channels import ChannelPruning
from stages.prune.coupling.cells import Cell
from stages.prune.coupling.coupled import side_by_side
from stages.prune.coupling.engine import couplings, cut
from stages.prune.coupling.parts import Place, known
from stages.prune.coupling.proof import same_without, shaken
from tests.stages.prune.coupling.recurrent_nets import RIGHT, WHOLE, X
from tests.stages.prune.prune_nets import HERE, built, context, silence

EXAMPLE = {"input": X}


def drawn(group, draw):
    """Others matter least in each of its members."""
    members = [
        replace(member, scores=torch.randperm(len(member.scores), generator=draw).float())
        for member in group.members or (group,)
    ]
    return side_by_side(members) if group.members else members[0].ranked()


def kill(module, place, channels):
    """Have these channels give zero, without what the product does for it."""
    part = known(module).get(place.name)
    if isinstance(place.side, int):
        module.get_parameter(place.name).data.index_fill_(place.side, torch.tensor(channels), 0)
    elif isinstance(part, Cell) and place.side == "out":
        owner, _, end = place.name.rpartition(".")
        layer = module.get_submodule(owner)
        for key, values in layer.named_parameters():
            if key.endswith(f"_{end}"):
                values.data.view(-1, layer.hidden_size, *values.shape[1:])[:, channels] = 0
    elif isinstance(part, nn.Linear) and place.side == "out":
        silence(part, channels)


@pytest.mark.parametrize("what", [what for what in RIGHT if what != "a norm behind"])
def test_dead_units_leave_and_the_outputs_stay(what):
    net, roots = RIGHT[what]
    module, draw = shaken(net.eval()), torch.Generator().manual_seed(1)
    found = couplings(module, EXAMPLE)
    assert {group.root: len(group.members) for group in found.groups} == roots
    assert found.whole == ()
    groups = [drawn(group, draw) for group in found.groups]
    channels = lost(groups, tuple(len(group.scores) - 3 for group in groups))
    dead = copy.deepcopy(module)
    for group in groups:
        for place, some in group.without([0, 1, 2]).items():
            kill(dead, place, some)
    smaller = cut(dead, EXAMPLE, channels, groups)
    assert torch.allclose(smaller(X), dead(X), atol=1e-5)
    assert not torch.allclose(dead(X), module(X), atol=1e-3)
    for root in roots:
        before, after = module.get_submodule(root), smaller.get_submodule(root)
        if isinstance(before, nn.RNNBase):
            assert after.hidden_size == before.hidden_size - len(channels[root]) == after.weight_hh_l0.shape[1]


def test_a_norm_behind_is_cut_along():
    net, _ = RIGHT["a norm behind"]
    (group,) = couplings(net.eval(), EXAMPLE).groups
    smaller = cut(net, EXAMPLE, {"r": [1, 2]}, [group])
    assert (smaller.n.normalized_shape, smaller.o.in_features) == ((28,), 28)


@pytest.mark.parametrize("what", WHOLE)
def test_what_cannot_be_told_apart_stays_whole(what):
    net, names = WHOLE[what]
    found = couplings(net.eval(), EXAMPLE)
    assert not any(isinstance(net.get_submodule(layer), nn.RNNBase) for group in found.groups for layer in group.layers)
    assert found.whole == names


def wrong(right):
    """What differs in one place from what is right."""
    yield right | {Place("r.l1.state", "in"): [0, 1]}
    yield right | {Place("r.l1", "in"): [3, 7, 18, 19]}
    yield right | {Place("r.l0_reverse", "out"): [4, 8]}
    yield right | {Place("o", "in"): [5, 9, 18, 21]}
    yield {place: channels for place, channels in right.items() if place.name != "r.l0"}


def test_a_wrong_unit_is_noticed():
    net, _ = RIGHT["last step of two layers in both directions"]
    module = shaken(net.eval())
    right = {
        Place("r", "out"): [0, 1],
        Place("r.l1", "in"): [3, 7, 17, 20],
        Place("r.l1_reverse", "in"): [3, 7, 17, 20],
        Place("o", "in"): [5, 9, 18, 20],
    }
    units = {"l0": [3, 7], "l0_reverse": [1, 4], "l1": [5, 9], "l1_reverse": [2, 4]}
    for end, some in units.items():
        right |= {Place(f"r.{end}", "out"): some, Place(f"r.{end}.state", "in"): some}
    before = copy.deepcopy(module.state_dict())
    assert same_without(module, EXAMPLE, right)
    for other in wrong(right):
        try:
            is_same = same_without(module, EXAMPLE, other)
        except StageError:  # it does not run
            is_same = False
        assert not is_same
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_each_cell_loses_what_matters_least_to_it(tmp_path):
    model = built("prune_nets.py:Stacked")
    units = {"l0": [0, 3], "l0_reverse": [1, 20], "l1": [5, 23], "l1_reverse": [7, 8]}
    for end, some in units.items():
        kill(model.module, Place(f"rnn.{end}", "out"), some)
        model.module.rnn.get_parameter(f"weight_hh_{end}").data[:, some] = 0
    for start, some in ((0, units["l1"]), (24, units["l1_reverse"])):
        model.module.head.weight.data[:, [start + unit for unit in some]] = 0
    for end in ("l1", "l1_reverse"):
        columns = [*units["l0"], *(24 + unit for unit in units["l0_reverse"])]
        model.module.rnn.get_parameter(f"weight_ih_{end}").data[:, columns] = 0
    stage = ChannelPruning(channels=0.95, round_to=2, ignore=("before",))
    small = stage.run(model, context(tmp_path, reports := {}))
    assert reports["pruning"]["channels"]["rnn"] == {"before": 24, "after": 22}
    for end, some in units.items():
        rest = [unit for unit in range(24) if unit not in some]
        old, new = (m.module.rnn.get_parameter(f"weight_hh_{end}") for m in (model, small))
        assert torch.equal(new, old.view(4, 24, 24)[:, rest][:, :, rest].flatten(0, 1))
    inputs = {"input": torch.rand(3, 1, 8, 8)}
    assert torch.allclose(small.predict(inputs)["output"], model.predict(inputs)["output"], atol=1e-5)
    save_exactly(small, tmp_path / "saved", HERE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_what_is_left_is_exported(tmp_path, kind):
    model = built("prune_nets.py:Stacked", kind=kind)
    small = ChannelPruning(macs=0.5).run(model, context(tmp_path, reports := {}))
    assert (small.module.rnn.hidden_size, reports["pruning"]["achieved"] <= 0.5) == (16, True)
    file, inputs = deploy(small, tmp_path / "model.onnx"), {"input": torch.rand(3, 1, 8, 8)}
    assert torch.allclose(file.predict(inputs)["output"], small.predict(inputs)["output"], atol=1e-5)


@pytest.mark.parametrize("importance", ["l1", "lamp", "fpgm", "taylor", "hessian", "activation", "random"])
def test_every_importance_ranks_units(tmp_path, importance):
    model = built("prune_nets.py:Stacked")
    settings = {"macs": 0.5, "importance": importance, "scope": "global", "round_to": 4}
    small = ChannelPruning(**settings).run(model, context(tmp_path, {}))
    assert small.module.rnn.hidden_size < 24


def test_the_plan_names_what_shrinks_and_what_stays():
    model = built("prune_nets.py:Stacked")
    first, widths = ChannelPruning(macs=0.5).reach(model)
    assert first == "channels leave 2 layers (`before`, `rnn`)"
    assert "24 to 16 in 1 layer (`rnn`)" in widths
    assert next(iter(ChannelPruning(params=0.95, ignore=("rnn",)).reach(model))) == "channels leave 1 layer (`before`)"
