"""Metrics over a whole split compared in pairs: by the same resamples for all models, kept with the predictions."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import TensorDataset

from pipeline.base.estimate import Estimate
from pipeline.errors import StageError
from pipeline.measure.accuracy import RESAMPLES, RESAMPLES_OF_ROWS, Evaluation, Scoring, evaluate
from pipeline.measure.agreement import compare
from pipeline.measure.gain import gain_of, gain_text, metric_lead
from pipeline.measure.statistics.resamples import metric_drop, metric_retention, percentile_interval, resampled
from pipeline.records import figures
from pipeline.records.parts.stages import StageRecord
from pipeline.report.terminal import WIDE, metrics_table
from pipeline.task import Metric, Split, first_output
from tests import records
from tests.contexts import Table

SIZE = 400


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mean_error(predictions: Tensor, targets: Tensor) -> float:
    return float((predictions - targets).abs().mean())


def errors(predictions: Tensor, targets: Tensor) -> Any:
    return (predictions - targets).abs().numpy()


BY_ROWS = Metric(errors, lambda rows: float(rows.mean()))


def evaluated(predictions: Tensor, targets: Tensor, **metrics: Any) -> Evaluation:
    def score(found: Tensor, wanted: Tensor) -> Tensor:
        return -((found - wanted) ** 2)

    model: Any = Table(predictions)
    split = Split(TensorDataset(torch.arange(len(targets))[:, None], targets))
    return evaluate(model, split, Scoring(first_output, score, metrics))


def test_metrics_of_two_models_are_compared_on_the_same_resamples(tmp_path: Path) -> None:
    targets = draw(SIZE, seed=0)
    theirs, noise = targets + draw(SIZE, seed=1), draw(SIZE, seed=2)
    models = [evaluated(values, targets, error=mean_error) for values in (theirs + 0.1 * noise, theirs)]
    for i, model in enumerate(models):
        model.save(tmp_path / f"{i}.safetensors")
    ours, baseline = (Evaluation.load(tmp_path / f"{i}.safetensors") for i in range(2))
    found = compare(ours, baseline, labelling=None)
    # What an own bootstrap of the examples' differences gives.
    errors = [(values - targets).abs().numpy() for values in (theirs + 0.1 * noise, theirs)]
    places = np.random.default_rng(5).integers(0, SIZE, (4000, SIZE))
    differences = (errors[1] - errors[0])[places].mean(1)
    shares = errors[0][places].mean(1) / errors[1][places].mean(1)
    lost, kept = found["metrics_drop"]["error"], found["metrics_retention"]["error"]
    assert lost.value == pytest.approx(errors[1].mean() - errors[0].mean(), abs=1e-6)
    assert (lost.low, lost.high) == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.0015)
    assert kept.value == pytest.approx(errors[0].mean() / errors[1].mean())
    assert (kept.low, kept.high) == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.003)
    alone = ours.metrics["error"]
    assert lost.high - lost.low < (alone.high - alone.low) / 5  # pairs: most of the doubt is common to both


def test_a_metric_by_rows_looks_at_each_example_once() -> None:
    calls = []

    def rows(predictions: Tensor, targets: Tensor) -> Any:
        calls.append(len(predictions))
        return errors(predictions, targets)

    targets = draw(SIZE, seed=0)
    by_rows = Metric(rows, BY_ROWS.figure)
    found = evaluated(targets + draw(SIZE, seed=1), targets, plain=mean_error, rows=by_rows)
    assert calls == [SIZE]
    assert {name: len(values) - 1 for name, values in found.resampled.items()} == {
        "plain": RESAMPLES,
        "rows": RESAMPLES_OF_ROWS,
    }
    assert found.resampled["rows"][: RESAMPLES + 1] == pytest.approx(found.resampled["plain"])
    assert by_rows(torch.ones(4), torch.zeros(4)) == 1


def test_a_metric_without_retention_has_its_drop() -> None:
    ours, theirs = (
        resampled(lambda at, mean=mean: mean + 0.1 * float(at.mean() > 199.5), 400) for mean in (0.1, -0.05)
    )
    assert metric_retention(ours, theirs) is None
    assert metric_drop(ours, theirs).value == pytest.approx(-0.15)
    assert metric_retention(theirs, ours) is not None


def test_an_undefined_resample_is_left_out() -> None:
    values = np.array([1.0, float("nan"), 0.5, 1.5, 1.0])
    assert percentile_interval(values).low == pytest.approx(np.quantile([0.5, 1.5, 1.0], 0.025))
    with pytest.raises(StageError, match="the task's metric `error` is nan; expected a finite number"):
        evaluated(draw(4, seed=0), draw(4, seed=1), error=lambda p, t: float("nan"))


def metric(value: float, seed: int) -> Any:
    return np.concatenate([[value], value + 0.02 * np.random.default_rng(seed).standard_normal(1000)])


def test_the_gain_of_a_metric_is_that_over_the_control() -> None:
    scores = {name: np.random.default_rng(i).random(50) for i, name in enumerate(("", "control"))}
    metrics = {"": {"bleu": metric(30.0, 1)}, "control": {"bleu": metric(28.0, 2), "other": metric(1.0, 0)}}
    gain = gain_of(scores[""], {"control": scores["control"]}, metrics=metrics)
    assert (list(gain.metrics), gain.metrics["bleu"].value) == (["bleu"], pytest.approx(2.0))
    assert 1.9 < gain.metrics["bleu"].low < 2.0 < gain.metrics["bleu"].high < 2.1
    assert "; bleu +2 [1.9" in gain_text(gain, examples=50, shares=True)
    assert figures.metrics(stage(gain=gain))["gain.bleu"] == pytest.approx(2.0)


def test_the_doubt_of_seeds_is_in_the_gain_of_a_metric() -> None:
    firsts, seconds = [metric(30 + i, i) for i in range(3)], [metric(28.0, 9 + i) for i in range(3)]
    found = metric_lead(firsts, seconds)
    assert found.value == pytest.approx(3.0)
    # Three seeds that differ by a deviation of 1: Student's t of two degrees of freedom is 4.303.
    assert found.high - found.value == pytest.approx(4.303 / np.sqrt(3), rel=0.01)


def stage(**changes: Any) -> StageRecord:
    given = {"metrics": {"spearman": Estimate(value=0.871, low=0.85, high=0.891)}}
    given |= {"metrics_drop": {"spearman": Estimate(value=0.012, low=0.001, high=0.02)}}
    return records.stage(**{**given, **changes})


@pytest.mark.parametrize("width", [80, WIDE])
def test_metrics_have_a_table_of_their_own(width: int) -> None:
    record = records.record(stage(), baseline=records.model(metrics=stage().metrics))
    out = io.StringIO()
    Console(file=out, width=width).print(metrics_table(record, width))
    printed = out.getvalue()
    assert "…" not in printed
    assert printed.count("spearman") == 2
    for text in ("0.871", "[0.850, 0.891]", "0.012", "[0.001, 0.020]"):
        assert text in printed
    assert metrics_table(records.record(stage(metrics={})), width) is None


def test_metrics_beside_the_baselines_are_figures_of_the_record() -> None:
    found = figures.metrics(stage(metrics_retention={"spearman": Estimate(value=0.98, low=0.97, high=0.99)}))
    assert (found["metric.spearman"], found["metric_drop.spearman_high"]) == (0.871, 0.02)
    assert found["metric_retention.spearman"] == 0.98
