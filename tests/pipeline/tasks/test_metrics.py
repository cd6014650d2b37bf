"""Metrics over a whole split against scikit-learn, scipy, sacrebleu and closed forms."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError
from pipeline.tasks.metrics import bleu, f1, matthews, pearson, perplexity, spearman

WORDS = ["the", "cat", "dog", "sat", "on", "a", "mat", ".", "red", "old", "ran", "to"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(size: int, count: int, seed: int) -> Tensor:
    return torch.randint(0, count, (size,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "binary"])
def test_f1_is_that_of_scikit_learn(count: int, average: Any) -> None:
    logits, targets = draw(200, count), classes(200, count, 1)
    if average == "binary" and count > 2:
        expected = f1_score(targets == 1, logits.argmax(-1) == 1)
    else:
        expected = f1_score(targets, logits.argmax(-1), average=average)
    assert f1(logits, targets, average) == pytest.approx(expected, abs=1e-12)
    assert f1(logits.argmax(-1), targets, average) == f1(logits, targets, average)


def test_f1_of_classes_that_do_not_all_occur() -> None:
    predicted, targets = torch.tensor([0, 4, 4]), torch.tensor([0, 4, 2])
    assert f1(predicted, targets) == pytest.approx(f1_score(targets, predicted, average="macro"))
    assert f1(torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long), "binary") == 0


@pytest.mark.parametrize("count", [2, 5])
def test_matthews_is_that_of_scikit_learn(count: int) -> None:
    logits, targets = draw(200, count), classes(200, count, 1)
    assert matthews(logits, targets) == pytest.approx(matthews_corrcoef(targets, logits.argmax(-1)), abs=1e-12)


def test_matthews_of_one_class_is_zero() -> None:
    ones = torch.ones(4, dtype=torch.long)
    assert matthews(ones, ones) == 0
    assert matthews(ones, torch.tensor([0, 1, 0, 1])) == 0


@pytest.mark.parametrize("metric", [f1, matthews])
def test_padded_positions_do_not_count(metric: Callable[..., float]) -> None:
    logits, targets = draw(6, 4, 3), classes(24, 3, 2).reshape(6, 4)
    padded = targets.clone()
    padded[:, 3] = -100
    assert metric(logits, padded) == metric(logits[:, :3], targets[:, :3])


@pytest.mark.parametrize("metric", [f1, matthews])
def test_targets_that_are_no_classes_are_refused(metric: Callable[..., float]) -> None:
    with pytest.raises(ConfigError, match=r"targets are a tensor of shape \(4,\); expected class numbers"):
        metric(draw(4, 3), draw(4))
    with pytest.raises(ConfigError, match="of the shape of the predictions"):
        metric(draw(4, 2, 3), classes(4, 3, 0))


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
def test_correlations_are_those_of_scipy(shape: tuple[int, ...]) -> None:
    targets = draw(50, seed=1).round(decimals=1)  # with ties
    found = (draw(50, seed=2) + targets).reshape(shape)
    ours = found.reshape(-1).numpy()
    assert pearson(found, targets) == pytest.approx(stats.pearsonr(ours, targets.numpy()).statistic, abs=1e-6)
    assert spearman(found, targets) == pytest.approx(stats.spearmanr(ours, targets.numpy()).statistic, abs=1e-12)


@pytest.mark.parametrize("metric", [pearson, spearman])
def test_correlation_with_a_constant_is_zero(metric: Callable[..., float]) -> None:
    assert metric(torch.ones(5), draw(5)) == 0
    with pytest.raises(ConfigError, match="expected one number an example"):
        metric(draw(5, 2), draw(5))


def sentences(size: int, seed: int) -> Tensor:
    """Ids of words with -100 after their end; some sentences are shorter than the longest n-gram."""
    lengths = torch.randint(2, 12, (size,), generator=torch.Generator().manual_seed(seed))
    ids = classes(size * 12, len(WORDS), seed + 1).reshape(size, 12)
    return ids.masked_fill(torch.arange(12) >= lengths[:, None], -100)


def text(ids: list[int]) -> str:
    return " ".join(WORDS[i] for i in ids).capitalize()


@pytest.mark.parametrize("share", [0.2, 0.8])  # of wrong words; in the second case no four in a row are right
def test_bleu_is_that_of_sacrebleu_on_any_part(share: float) -> None:
    targets = sentences(80, 0)
    wrong = torch.rand(targets.shape, generator=torch.Generator().manual_seed(5)) < share
    predictions = torch.where(wrong & (targets >= 0), (targets + 1) % len(WORDS), targets)
    metric = bleu(text)
    rows = metric.rows(predictions, targets)
    for positions in (np.arange(80), np.array([3, 3, 7, 60]), np.arange(40, 80)):
        ours, theirs = (
            [text([i for i in row if i >= 0]) for row in ids[positions].tolist()] for ids in (predictions, targets)
        )
        expected = sacrebleu.corpus_bleu(ours, [theirs]).score
        assert metric.figure(rows[positions]) == pytest.approx(expected, abs=1e-9)
        assert metric(predictions[positions], targets[positions]) == pytest.approx(expected, abs=1e-9)
    assert metric(targets, targets) == pytest.approx(100)


def test_bleu_finds_words_and_heeds_case_as_told() -> None:
    def decode(ids: list[int]) -> str:
        return ["The red cat sat there.", "the red cat sat there ."][ids[0]]

    ours, theirs = torch.tensor([[1]]), torch.tensor([[0]])
    assert bleu(decode, lowercase=True)(ours, theirs) == pytest.approx(100)
    assert bleu(decode)(ours, theirs) < 100
    assert bleu(decode, lowercase=True, tokenize="none")(ours, theirs) < 100


def test_perplexity_is_exp_of_the_mean_cross_entropy_over_tokens() -> None:
    logits, targets = draw(5, 7, 11), classes(35, 11, 3).reshape(5, 7)
    targets[1:, 4:] = -100
    expected = math.exp(F.cross_entropy(logits.double().flatten(0, 1), targets.flatten(), ignore_index=-100))
    assert perplexity(logits, targets) == pytest.approx(expected)
    likely = logits.double().log_softmax(-1).gather(-1, targets.clamp_min(0)[..., None])[..., 0]
    assert perplexity(likely, targets) == pytest.approx(expected)
    assert perplexity(torch.full((3, 2), -math.log(8.0)), torch.zeros(3, 2).long()) == pytest.approx(8)


def test_perplexity_without_tokens_is_no_number() -> None:
    assert math.isnan(perplexity(draw(2, 3), torch.full((2, 3), -100)))
    with pytest.raises(ConfigError, match=r"expected those of targets \(2, 3\)"):
        perplexity(draw(2, 4), torch.zeros(2, 3).long())


def test_padding_is_never_right() -> None:
    assert f1(torch.tensor([-100, 0]), torch.tensor([1, 0]), average="micro") == pytest.approx(0.5)
