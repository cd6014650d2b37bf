"""Targets of the file to deploy, with real files and, for a latency, real runs."""

import pytest

from pipeline.errors import StageError
from pipeline.measure.size import size_bytes
from stages.prune.allocation import measured
from stages.prune.channels import ChannelPruning
from tests.conftest import deploy
from tests.stages.prune.prune_nets import DIGITS, built, context


@pytest.fixture
def net():
    return built("models.py:DigitNet", folder=DIGITS, width=32, blocks=2)


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


def test_a_latency_is_solved_for_as_far_as_predictions_are_off(net, tmp_path, monkeypatch):
    """The file takes as long as the square root of its MACs says; what is predicted are the MACs."""
    taken = []

    def ratio(one, other):
        taken.append((size_bytes(other) / size_bytes(one)) ** 0.5)
        return type("Estimate", (), {"value": taken[-1]})

    monkeypatch.setattr(measured, "latency_ratio", ratio)
    reports = {}
    ChannelPruning(latency=0.7, round_to=2).run(net, context(tmp_path, reports, deployed=files(tmp_path)))
    assert 0.6 < reports["pruning"]["achieved"] <= 0.7
    assert len(taken) <= measured.TRIES + 3


def test_out_of_reach_it_says_what_is_attainable(net, tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "latency_ratio", lambda one, other: type("Estimate", (), {"value": 0.8}))
    ctx = context(tmp_path, {}, deployed=files(tmp_path))
    with pytest.raises(StageError, match=r"latency: 0.5: 0.800 is what the smallest one found has"):
        ChannelPruning(latency=0.5, round_to=2).run(net, ctx)


def test_what_takes_too_long_is_not_timed(net, tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "latency_ratio", lambda one, other: None)
    with pytest.raises(StageError, match="too long to be timed in turns"):
        ChannelPruning(latency=0.5).run(net, context(tmp_path, {}, deployed=files(tmp_path)))


@pytest.mark.slow
def test_a_real_latency_is_kept(net, tmp_path):
    wide = built("models.py:DigitNet", folder=DIGITS, width=128, blocks=3)
    reports = {}
    ctx = context(tmp_path, reports, deployed=files(tmp_path))
    small = ChannelPruning(latency=0.5).run(wide, ctx)
    assert reports["pruning"]["steps"][0]["achieved"] <= 0.55
    ratio = measured.latency_ratio(ctx.deployed(wide), ctx.deployed(small))
    assert ratio.low < 0.6
