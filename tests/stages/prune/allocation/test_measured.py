"""Targets of the file to deploy, with real files and, for a latency, real runs."""

import pytest
from torch import distributed as dist
from torch import nn
from torch.distributed import TCPStore

from pipeline.base.estimate import Estimate
from pipeline.base.world import FOR_EVER, join
from pipeline.errors import Interruption, StageError
from pipeline.measure.cost import torch_params
from pipeline.measure.size import size_bytes
from pipeline.model import TorchModel
from stages.prune.allocation import latencies, measured
from stages.prune.channels import ChannelPruning
from stages.prune.coupling import engine
from tests.conftest import deploy
from tests.forked import PATIENCE, SERVER, start
from tests.stages.prune.prune_nets import DIGITS, built, context


@pytest.fixture
def net():
    return built("models.py:DigitNet", folder=DIGITS, width=16, blocks=2)


@pytest.fixture
def kernels(monkeypatch):
    """Kernels take as long as their MACs say."""
    monkeypatch.setattr(latencies, "_measured", lambda kind, inputs, outputs: inputs * outputs * 1e-6)


def files(folder):
    return lambda model: deploy(model, folder / f"{id(model)}.onnx")


def test_the_file_has_at_most_that_share_of_the_bytes(net, tmp_path):
    reports = {}
    ctx = context(tmp_path, reports, deployed=files(tmp_path))
    small = ChannelPruning(size=0.5, round_to=1).run(net, ctx)
    share = size_bytes(ctx.deployed(small)) / size_bytes(ctx.deployed(net))
    assert 0.45 < share <= 0.5
    assert reports["pruning"]["achieved"] == pytest.approx(share, abs=0.01)
    assert reports["pruning"]["target"] == "size"


def at(share):
    return Estimate(value=share, low=share, high=share)


@pytest.mark.parametrize("constant", [0.0, 0.2, 0.4])
def test_a_latency_is_solved_for_as_far_as_predictions_are_off(net, tmp_path, monkeypatch, kernels, constant):
    """The file takes as its bytes do, and a constant part; what is predicted are kernels by themselves."""
    shares = []

    def ratio(one, other):
        shares.append(constant + (1 - constant) * size_bytes(other) / size_bytes(one))
        return at(shares[-1])

    monkeypatch.setattr(measured, "latency_ratio", ratio)
    reports = {}
    ChannelPruning(latency=0.6, round_to=2).run(net, context(tmp_path, reports, deployed=files(tmp_path)))
    report = reports["pruning"]
    assert 0.5 < report["achieved"] <= 0.6
    assert report["achieved"] == report["steps"][0]["achieved"] == report["interval"][0]
    assert len(shares) <= measured.TRIES + 1  # each once


@pytest.mark.parametrize("constant", [0.1, 0.3, 0.45])
def test_a_size_with_a_part_that_stays_is_reached(net, tmp_path, monkeypatch, constant):
    own = measured.size_bytes
    whole = own(deploy(net, tmp_path / "whole.onnx"))
    monkeypatch.setattr(measured, "size_bytes", lambda file: constant * whole + (1 - constant) * own(file))
    reports = {}
    ChannelPruning(size=0.5, round_to=1).run(net, context(tmp_path, reports, deployed=files(tmp_path)))
    assert 0.45 < reports["pruning"]["achieved"] <= 0.5


def test_what_was_measured_is_not_measured_again(net, tmp_path, monkeypatch):
    ctx = context(tmp_path, first := {}, deployed=files(tmp_path))
    ChannelPruning(size=0.5, round_to=1).run(net, ctx)
    monkeypatch.setattr(measured, "deploy", None)
    again = context(tmp_path, second := {}, deployed=files(tmp_path))
    ChannelPruning(size=0.5, round_to=1).run(net, again)
    assert first == second


def test_out_of_reach_it_says_what_is_attainable(net, tmp_path, monkeypatch, kernels):
    monkeypatch.setattr(measured, "latency_ratio", lambda one, other: at(0.8))
    ctx = context(tmp_path, {}, deployed=files(tmp_path))
    with pytest.raises(StageError, match=r"latency: 0.5: 0.800 is what the smallest one has. Set latency to more"):
        ChannelPruning(latency=0.5, round_to=2).run(net, ctx)


def test_what_takes_too_long_is_not_timed(net, tmp_path, monkeypatch, kernels):
    monkeypatch.setattr(measured, "latency_ratio", lambda one, other: None)
    with pytest.raises(StageError, match="too long to be timed in turns"):
        ChannelPruning(latency=0.5).run(net, context(tmp_path, {}, deployed=files(tmp_path)))


def test_a_stop_ends_the_search(net, tmp_path):
    ctx = context(tmp_path, {}, deployed=files(tmp_path), interrupted=lambda: True)
    with pytest.raises(Interruption, match="stopped in the search for widths"):
        ChannelPruning(size=0.5).run(net, ctx)


def test_the_model_that_came_in_counts_as_one(tmp_path, monkeypatch):
    """Not that whose attention is made of plain layers, which takes half of its bytes here."""

    def weighed(model):
        has_own = any(isinstance(part, nn.MultiheadAttention) for part in model.module.modules())
        return torch_params(model.module) * (2 if has_own else 1)

    monkeypatch.setattr(measured, "OnnxModel", TorchModel)
    monkeypatch.setattr(measured, "deploy", lambda model, path: model)
    monkeypatch.setattr(measured, "size_bytes", weighed)
    model, reports = built("transformer_nets.py:Encoder"), {}
    small = ChannelPruning(size=0.45, round_to=1, widths=("heads", "feed_forward")).run(
        model, context(tmp_path, reports, deployed=lambda model: model)
    )
    share = torch_params(small.module) / torch_params(model.module)
    assert reports["pruning"]["achieved"] == pytest.approx(share / 2)
    assert 0.8 < share <= 0.9


def in_one_of_two(rank, port, folder, stops, results):
    """Put the widths, or how it ended, and how many files were made, of a search in one of two processes."""
    shares = []

    def ratio(self, module):
        shares.append(torch_params(module) / torch_params(self.reference.module))
        return at(shares[-1])

    measured.Measured._ratio = ratio
    world = join(TCPStore("127.0.0.1", port, 2, is_master=False, timeout=FOR_EVER), rank, 2)
    ctx = context(folder, {}, world=world, interrupted=lambda: stops)
    try:
        small = ChannelPruning(size=0.6, round_to=1).run(built("prune_nets.py:PlainNet"), ctx)
        results.put((rank, engine.widths(small.module), len(shares)))
    except Interruption as stop:
        results.put((rank, str(stop), len(shares)))
    results.close()
    results.join_thread()
    dist.destroy_process_group()


@pytest.mark.parametrize("stops", [False, True])
def test_the_first_process_measures_for_all(tmp_path, stops):
    store, results = (
        TCPStore("127.0.0.1", 0, 2, is_master=True, timeout=FOR_EVER, wait_for_workers=False),
        SERVER.Queue(),
    )
    children = [start(in_one_of_two, rank, store.port, tmp_path, stops, results) for rank in range(2)]
    (_, first, files), (_, second, others) = sorted(results.get(timeout=PATIENCE) for _ in children)
    for child in children:
        child.join(PATIENCE)
    assert first == second
    assert others == 0
    assert "stopped in the search for widths" in first if stops else files > 1 and first["one"] < 16


@pytest.mark.slow
def test_a_real_latency_is_kept(net, tmp_path):
    wide = built("models.py:DigitNet", folder=DIGITS, width=128, blocks=3)
    reports = {}
    ctx = context(tmp_path, reports, deployed=files(tmp_path))
    small = ChannelPruning(latency=0.5).run(wide, ctx)
    assert reports["pruning"]["achieved"] <= 0.5
    ratio = measured.latency_ratio(ctx.deployed(wide), ctx.deployed(small))
    assert ratio.low < 0.6
