"""Figures over a whole split, for `Task.metrics`: each is called with all predictions and all targets, joined.

Predictions of classes are logits (..., C) or class numbers (...); targets below zero, as -100, are padding and do not
count. What a resample of the examples leaves undefined is told with each.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.task import Metric, kind

Numbers = NDArray[np.float64]
ORDER = 4  # longest n-gram of BLEU


def f1(
    predictions: Tensor, targets: Tensor, average: Literal["binary", "macro", "micro", "weighted"] = "macro"
) -> float:
    """F1 of classes, 0 to 1: 2 TP / (2 TP + FP + FN).

    Args:
        predictions: logits (..., C), or class numbers (...).
        targets: class numbers (...).
        average: `binary` is that of class 1 alone; `macro` the mean over the classes that occur in either, `weighted`
            by how often each is a target; `micro` counts all together. 0 for a class that occurs in neither.

    Reference:
        van Rijsbergen: Information Retrieval, 2nd edition, 1979, chapter 7.
    """
    right, predicted, support = _counts(predictions, targets)
    if average == "micro":
        right, predicted, support = (count.sum(keepdims=True) for count in (right, predicted, support))
    both = predicted + support
    by_class = 2 * right / np.maximum(both, 1)
    if average == "binary":
        return float(by_class[1]) if len(by_class) > 1 else 0.0
    weights = support if average == "weighted" else (both > 0).astype(float)
    return float((by_class * weights).sum() / max(weights.sum(), 1))


def matthews(predictions: Tensor, targets: Tensor) -> float:
    """Correlation of predicted classes with the right ones, -1 to 1; 0 where either has one class alone.

    Args:
        predictions: logits (..., C), or class numbers (...).
        targets: class numbers (...).

    Reference:
        Gorodkin: Comparing two K-category assignments by a K-category correlation coefficient, Computational Biology
        and Chemistry 28, 2004, which is that of Matthews 1975 for two classes.
    """
    right, predicted, support = _counts(predictions, targets)
    total = support.sum()
    spread = (total**2 - (predicted**2).sum()) * (total**2 - (support**2).sum())
    return float((right.sum() * total - (predicted * support).sum()) / np.sqrt(spread)) if spread > 0 else 0.0


def pearson(predictions: Tensor, targets: Tensor) -> float:
    """Pearson's correlation of numbers (N,) or (N, 1) with targets, -1 to 1; 0 where either is constant.

    Reference:
        Pearson: Notes on regression and inheritance in the case of two parents, 1895.
    """
    return _correlation(*_pair(predictions, targets))


def spearman(predictions: Tensor, targets: Tensor) -> float:
    """Correlation of the ranks of numbers (N,) or (N, 1) with those of targets, -1 to 1; 0 where either is constant.

    Equal numbers share the mean of their ranks.

    Reference:
        Spearman: The proof and measurement of association between two things, American Journal of Psychology 15, 1904.
    """
    from scipy.stats import rankdata

    return _correlation(*(rankdata(values) for values in _pair(predictions, targets)))


def bleu(decode: Callable[[list[int]], str], *, tokenize: str = "13a", lowercase: bool = False) -> Metric:
    """BLEU of a corpus as sacrebleu's `corpus_bleu` gives it, 0 to 100; predictions and targets are ids (N, T).

    The n-grams of each sentence are counted once: a resample adds counts.

    Args:
        decode: ids of a sentence, those below zero left out -> its text; what stands for padding, start and end is for
            it to drop: `partial(tokenizer.decode, skip_special_tokens=True)`.
        tokenize: how sacrebleu finds words in the text.
        lowercase: whether case does not count.

    Reference:
        Papineni, Roukos, Ward and Zhu: Bleu: a method for automatic evaluation of machine translation, 2002; Post: A
        call for clarity in reporting BLEU scores, 2018, 1804.08771. The interval by resampled sentences: Koehn:
        Statistical significance tests for machine translation evaluation, 2004.
    """
    from sacrebleu.metrics.bleu import BLEU

    counter = BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=True, max_ngram_order=ORDER)

    def rows(predictions: Tensor, targets: Tensor) -> Numbers:
        pairs = zip(_texts(predictions, decode), _texts(targets, decode), strict=True)
        scores = [counter.sentence_score(hypothesis, [reference]) for hypothesis, reference in pairs]
        return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], dtype=np.float64)

    def figure(rows: Numbers) -> float:
        counts = [int(number) for number in rows.sum(0)]
        correct, total = counts[:ORDER], counts[ORDER : 2 * ORDER]
        smooth = {"smooth_method": "exp", "max_ngram_order": ORDER}  # as `corpus_bleu` has it
        return float(BLEU.compute_bleu(correct, total, *counts[2 * ORDER :], **smooth).score)

    return Metric(rows, figure)


def _token_likelihoods(predictions: Tensor, targets: Tensor) -> Numbers:
    """For each example the sum of its counted tokens' log-likelihoods in nats, and their number: (N, 2)."""
    rows = []
    for predicted, target in zip(predictions, targets, strict=True):  # one at a time: whole logits are large
        counted = target >= 0
        if predicted.ndim > target.ndim:
            likely = torch.log_softmax(predicted[counted].double(), -1)
            log_likelihoods = likely.gather(-1, target[counted].long()[:, None])
        elif predicted.shape == target.shape:
            log_likelihoods = predicted[counted].double()
        else:
            problem = f"predictions are {kind(predictions)}"
            raise ConfigError(problem, expected=f"those of targets {tuple(targets.shape)}")
        rows.append([float(log_likelihoods.sum()), float(counted.sum())])
    return np.array(rows)


def _mean_surprise(rows: Numbers) -> float:
    likely, tokens = rows.sum(0)
    return float(np.exp(-likely / tokens)) if tokens else float("nan")


perplexity = Metric(_token_likelihoods, _mean_surprise)
"""exp of minus the mean log-likelihood over all tokens that count; lower is better; NaN where none does.

Predictions are log-likelihoods (N, T) in nats of the targets (N, T), or logits (N, T, C). Give the former where there
are many classes: the logits of all examples would lie in memory at once.

Reference:
    Jelinek, Mercer, Bahl and Baker: Perplexity, a measure of the difficulty of speech recognition tasks, 1977.
"""


def _counts(predictions: Tensor, targets: Tensor) -> tuple[Numbers, Numbers, Numbers]:
    """For each class (C,): how often it is rightly predicted, predicted, and the target."""
    class_numbers = predictions.argmax(-1) if predictions.ndim > targets.ndim else predictions
    if class_numbers.shape != targets.shape or targets.is_floating_point():
        raise ConfigError(f"targets are {kind(targets)}", expected="class numbers, of the shape of the predictions")
    counted = targets >= 0
    ours, theirs = class_numbers[counted].long().numpy(), targets[counted].long().numpy()
    # Padding where a class is wanted is wrong: it becomes a class that no target has.
    ours = np.where(ours < 0, max(ours.max(initial=0), theirs.max(initial=0)) + 1, ours)
    classes = int(max(ours.max(initial=0), theirs.max(initial=0))) + 1
    counts = [np.bincount(values, minlength=classes) for values in (ours[ours == theirs], ours, theirs)]
    return counts[0].astype(float), counts[1].astype(float), counts[2].astype(float)


def _pair(predictions: Tensor, targets: Tensor) -> tuple[Numbers, Numbers]:
    """Both as (N,), one number an example."""
    for values in (predictions, targets):
        if values.numel() != len(values):
            raise ConfigError(f"there are {kind(values)}", expected="one number an example: (N,) or (N, 1)")
    return predictions.double().reshape(-1).numpy(), targets.double().reshape(-1).numpy()


def _correlation(ours: Numbers, theirs: Numbers) -> float:
    a, b = ours - ours.mean(), theirs - theirs.mean()
    spread = np.sqrt((a @ a) * (b @ b))
    return float(np.clip(a @ b / spread, -1.0, 1.0)) if spread > 0 else 0.0


def _texts(ids: Tensor, decode: Callable[[list[int]], str]) -> Sequence[str]:
    return [decode([number for number in row if number >= 0]) for row in ids.tolist()]
