"""Layers by themselves in ONNX Runtime: their shapes are those of the module's, and time follows the work."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from stages.prune.allocation.latencies import _graph, _kind, _recurrent_kind, latencies_of
from stages.prune.allocation.search import lost
from stages.prune.coupling.engine import couplings, trimmed
from tests.stages.prune.prune_nets import Encoder, MobileNet, Stacked, built


@pytest.mark.parametrize("layer", [
    nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Conv2d(8, 16, (3, 1), padding="same"), nn.Conv2d(8, 8, 3, groups=8),
    nn.Conv1d(8, 16, 3, dilation=2), nn.Conv2d(8, 16, 1, groups=4), nn.ConvTranspose2d(8, 16, 2, stride=2),
    nn.Linear(8, 16), nn.ConvTranspose2d(8, 16, 3, stride=2, output_padding=1), nn.Conv1d(8, 16, 3, padding="valid"),
    nn.Conv2d(8, 16, 3, padding="same", dilation=2),
])  # fmt: skip
def test_the_graph_gives_what_the_layer_gives(layer):
    values = torch.rand(1, *([5, 8] if isinstance(layer, nn.Linear) else [8, *[9] * (layer.weight.ndim - 2)]))
    out = layer(values)
    axis = -1 if isinstance(layer, nn.Linear) else 1
    graph, feed = _graph(_kind(layer, values), 8, out.shape[axis])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (outputs,) = session.run(None, feed)
    assert outputs.shape == tuple(out.shape)
    assert feed["x"].shape == tuple(values.shape)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("both", [False, True])
def test_the_kernel_of_a_recurrent_layer_runs_as_it_does(kind, both):
    layer = getattr(nn, kind)(6, 5, 2, batch_first=True, bidirectional=both)
    graph, feed = _graph(_recurrent_kind(layer, torch.rand(3, 4, 6)), 6, 5)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (outputs,) = session.run(None, feed)
    assert outputs.shape == (4, 1 + both, 3, 5)


@pytest.mark.parametrize("kind", [MobileNet, Encoder, Stacked])
def test_widths_are_those_of_the_smaller_network(kind, monkeypatch):
    model = built(f"prune_nets.py:{kind.__name__}")
    groups = couplings(model.module, model.example).groups
    asked = []
    latencies = latencies_of(model.module, model.example, groups, {})
    monkeypatch.setattr("stages.prune.allocation.latencies._measured", lambda *key: asked.append(key) or 1.0)
    counts = tuple(max(1, len(group.scores) // 2) for group in groups)
    latencies.of(counts)
    smaller = latencies_of(trimmed(model.module, lost(groups, counts), groups), model.example, [], {})
    whole = [(one.kind._replace(groups=0), *one.widths.tolist()) for one in smaller.layers]
    assert {(kind._replace(groups=0), *widths) for kind, *widths in asked} == {*whole}


def test_more_work_takes_longer_and_is_measured_once():
    layer = nn.Linear(512, 512)
    net = nn.Sequential(layer, nn.ReLU(), nn.Linear(512, 8)).eval()
    example = {"input": torch.rand(64, 512)[None]}
    groups = couplings(net, example).groups
    known = {}
    latencies = latencies_of(net, example, groups, known)
    assert latencies.of((512,)) > 2 * latencies.of((64,))
    assert latencies.of((512,)) == latencies.of((512,))
    assert len(known) == 4
    assert all(seconds > 0 for seconds in known.values())
    assert np.isclose(latencies.of((64,)), latencies.of((64,), 0))
