import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import StageError
from stages.prune.sparse.layers import calls_of, weights_of
from tests.stages.prune.prune_nets import built
from tests.stages.prune.sparse.sparse_nets import HERE


@pytest.mark.parametrize(("layer", "axis"), [
    (nn.Linear(8, 6), 1), (nn.Conv2d(8, 6, 3, groups=2), 1), (nn.ConvTranspose2d(8, 6, 3, groups=2), 0),
    (nn.Conv1d(4, 6, 5), 1), (nn.Conv3d(4, 2, 2), 1), (nn.LSTM(8, 6, num_layers=2, proj_size=4), 1),
    (nn.MultiheadAttention(8, 2), 1), (nn.MultiheadAttention(8, 2, kdim=4, vdim=12), 1),
])  # fmt: skip
def test_inputs_beside_each_other_are_channels_of_one_position(layer: nn.Module, axis: int) -> None:
    for weight in weights_of(layer):
        parameter = layer.get_parameter(weight.name)
        places = weight.places
        assert sorted(places.reshape(-1)) == list(range(parameter.numel()))
        assert places.shape[2] % weight.channels == 0
        few = places.reshape(*places.shape[:2], -1, weight.channels)
        at = np.stack(np.unravel_index(few, parameter.shape), -1)
        others = np.delete(at, axis, axis=-1)
        assert (others == others[..., :1, :]).all()
        assert (np.diff(at[..., axis], axis=-1) == 1).all()
        assert weight.stored(layer, weight.blocks(layer)).equal(parameter)


def test_every_weight_is_there_once_with_the_layers_that_have_it() -> None:
    encoder = weights_of(built("prune_nets.py:Encoder", layers=1).module)
    assert [(w.name, w.is_met) for w in encoder] == [
        ("embed.weight", True), ("encoder.layers.0.self_attn.in_proj_weight", False),
        ("encoder.layers.0.self_attn.out_proj.weight", True), ("encoder.layers.0.linear1.weight", True),
        ("encoder.layers.0.linear2.weight", True), ("head.weight", True),
    ]  # fmt: skip
    recurrent = [w.name for w in weights_of(built("prune_nets.py:Recurrent").module)]
    assert recurrent[1:-1] == [f"gru.weight_{kind}_l0{end}" for end in ("", "_reverse") for kind in ("ih", "hh")]
    twice = {w.name: w.layers for w in weights_of(built("sparse_nets.py:Twice", folder=HERE).module)}
    assert twice == {"head.weight": ("head",), "embed.weight": ("embed",), "one.weight": ("one", "two")}
    tied = built("prune_nets.py:Tied", {"tokens": torch.zeros(2, 5, dtype=torch.int64)})
    assert [w.name for w in weights_of(tied.module)] == ["up.weight", "down.weight"]  # the head's is the embedding


def test_a_forward_tells_the_order_of_calls_and_what_computes_with_other_weights() -> None:
    model = built("sparse_nets.py:Odd", folder=HERE)
    calls = calls_of(model, StageError)
    assert calls.layers == ["stem", "standardized", "padded", "head"]
    assert calls.nonlinear == ["standardized"]
    assert not any(part._forward_pre_hooks for part in model.module.modules())
    assert calls_of(built("sparse_nets.py:Twice", folder=HERE), StageError).layers == ["embed", "one", "two", "head"]
    encoder = calls_of(built("prune_nets.py:Encoder", layers=1), StageError)
    assert encoder.layers[1] == "encoder.layers.0.self_attn"
