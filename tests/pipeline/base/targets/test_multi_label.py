"""F1 and mean average precision against scikit-learn's, of the whole set and of resamples."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from pipeline.base.targets.multi_label import f1_macro, f1_micro, mean_average_precision
from pipeline.errors import ConfigError
from tests.draws import normal

LOGITS = normal(300, 5).round(decimals=1)  # with many equal ones
LABELS = (normal(300, 5, seed=1) + 0.3 * LOGITS > 0.7).float()


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_figures_are_scikit_learns(seed: int | None) -> None:
    at = np.arange(300) if seed is None else np.random.default_rng(seed).integers(0, 300, 300)
    ours, labels = LOGITS[at], LABELS[at]
    for metric, average in ((f1_micro, "micro"), (f1_macro, "macro")):
        figure = metric.figure(metric.rows(LOGITS, LABELS)[at])
        assert figure == pytest.approx(f1_score(labels, ours > 0, average=average))
    figure = mean_average_precision.figure(mean_average_precision.rows(LOGITS, LABELS)[at])
    assert figure == pytest.approx(average_precision_score(labels, ours, average="macro"))


def test_what_is_ignored_does_not_count() -> None:
    labels = LABELS.clone()
    labels[:40, 0] = -100
    average = [average_precision_score(labels[at, i], LOGITS[at, i]) for i in range(5) for at in [labels[:, i] >= 0]]
    assert mean_average_precision(LOGITS, labels) == pytest.approx(np.mean(average))
    counted = labels.flatten() >= 0
    micro = f1_score(labels.flatten()[counted], LOGITS.flatten()[counted] > 0)
    assert f1_micro(LOGITS, labels) == pytest.approx(micro)


def test_a_label_that_no_example_has_is_left_out_of_the_means() -> None:
    labels = torch.cat([LABELS, torch.zeros(300, 1)], 1)
    logits = torch.cat([LOGITS, -torch.ones(300, 1)], 1)
    assert mean_average_precision(logits, labels) == pytest.approx(mean_average_precision(LOGITS, LABELS))
    assert f1_macro(logits, labels) == pytest.approx(f1_macro(LOGITS, LABELS))
    assert np.isnan(mean_average_precision(logits[:, 5:], labels[:, 5:]))


def test_a_single_logit_has_the_f1_of_its_label() -> None:
    assert f1_micro(LOGITS[:, :1], LABELS[:, 0]) == pytest.approx(f1_score(LABELS[:, 0], LOGITS[:, 0] > 0))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"predictions are \(300, 5\) and targets \(300, 4\)"):
        f1_micro(LOGITS, LABELS[:, :4])
