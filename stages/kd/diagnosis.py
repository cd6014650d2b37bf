"""What a teacher is like before anybody blames the student: how good, how sure, and whether its data are alike."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy
import torch
from pydantic import JsonValue
from torch import Tensor

from pipeline.base.batches import Inputs, Outputs
from pipeline.base.targets.labelling import Labelling
from pipeline.context import Context
from pipeline.errors import Interruption
from pipeline.measure.statistics.means import drop
from pipeline.measure.statistics.shares import LEVEL
from pipeline.task import Batch, Output, Split
from stages.kd.cache import CachedValues
from stages.kd.inspection.confidence import (
    Numbers,
    Shift,
    Sureness,
    calibration_error,
    confidence_shift,
    joined,
    prediction_shift,
    sureness,
)
from stages.kd.teacher import Teacher

EXAMPLES = 2000  # of a split, at most; a bound on what the diagnosis costs
EXAMPLES_DECODED = 200  # where predictions are no logits: to decode may take many forwards
BATCH_SIZE = 64
SURE = 0.02  # mean entropy as a share of log C, below which soft targets are hardly more than labels
GAP = 0.1  # confidence above accuracy
SHIFT = 0.1  # of the mean confidence in right answers, or between the shares of predicted classes
SHIFT_P = 0.001  # a shift must be as large, and as sure
PERFECT = 0.99  # validation accuracy that a teacher with no error on train should not surely be below


@dataclass(frozen=True)
class Answers:
    """What a teacher says of a sample of a split: the task's scores (N,), and how sure it is where that can be told."""

    scores: Numbers
    sure: Sureness | None = None


def diagnose(teachers: Sequence[Teacher], ctx: Context, temperature: float | None = None) -> None:
    """Report what each teacher is like on train and validation, under `teacher`, `teacher_1`, ..., and warn.

    It looks at a fixed sample of at most 2,000 examples of a split; on train at cached logits where there are any. The
    first of several processes does it alone.

    Args:
        teachers: the teachers.
        ctx: the data; gets the reports and the warnings.
        temperature: at which the student sees the teacher; None where it does not look at logits.

    Raises:
        Interruption: a stop was asked for.
    """
    stopped = False
    if ctx.world.main:
        try:
            _diagnose(teachers, ctx, temperature)
        except Interruption:
            stopped = True
    if ctx.world.any(stopped):  # all stop, or none: the others wait for the first
        raise Interruption("stopped while looking at the teacher")


def _diagnose(teachers: Sequence[Teacher], ctx: Context, temperature: float | None) -> None:
    for i, teacher in enumerate(teachers):
        began, name = time.monotonic(), f"teacher_{i}" if i else "teacher"
        # Without logits training targets may be of another kind than those that are scored.
        train = answers_of(teacher, ctx.train, ctx, temperature, teacher.cached) if ctx.logits else None
        validation = answers_of(teacher, ctx.validation, ctx, temperature)
        report, warnings = findings(train, validation, temperature)
        ctx.report(name, report)
        ctx.log.debug("the diagnosis of %s took %.1f s", name, time.monotonic() - began)
        for text in warnings:
            ctx.warn(f"{f'teachers[{i}]' if len(teachers) > 1 else 'the teacher'} {text}")


def findings(
    train: Answers | None, validation: Answers, temperature: float | None = None
) -> tuple[dict[str, JsonValue], list[str]]:
    """What a record says of a teacher, and what to warn of, as clauses after "the teacher".

    Args:
        train, validation: its answers; there are warnings only where both tell how sure it is.
        temperature: as in `diagnose`.
    """
    report: dict[str, JsonValue] = {"validation": _described(validation)}
    report |= {"train": _described(train)} if train else {}
    if train is None or train.sure is None or validation.sure is None:
        return report, []
    on_train, on_validation = train.sure, validation.sure
    softened = float(on_train.softened.mean()) / math.log(on_train.classes)
    moved, shares = confidence_shift(on_train, on_validation), prediction_shift(on_train, on_validation)
    report |= {"right_on_train": float(on_train.right.mean()), "softened_entropy_share": softened}
    report |= {"confidence_shift": moved._asdict(), "prediction_shift": shares._asdict()}
    warnings = (
        _weak(on_validation),
        _certain(softened, temperature) if temperature else "",
        _overconfident(on_train, "training"),
        _overconfident(on_validation, "validation"),
        _shifted("how sure it is of its right answers", moved),
        _shifted("which classes it predicts", shares),
        _faultless(on_train, on_validation),
    )
    return report, [text for text in warnings if text]


def answers_of(
    teacher: Callable[[Inputs], Outputs],
    split: Split,
    ctx: Context,
    temperature: float | None = None,
    cache: CachedValues | None = None,
) -> Answers:
    """A teacher's answers on a fixed sample of a split.

    Args:
        teacher: the teacher.
        split: whose examples it answers.
        ctx: how to decode and to score.
        temperature: of the softened entropy.
        cache: its logits on the split, where they are cached; used where they are those of the examples as they are.

    Raises:
        Interruption: a stop was asked for.
    """
    size = min(len(split), EXAMPLES if ctx.logits else EXAMPLES_DECODED)
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:size]
    remembered = cache if _tells_all(cache, ctx) else None
    scores: list[Tensor] = []
    parts: list[Sureness | None] = []
    with ctx.progress("looking at the teacher", size) as advance:
        for batch in split.select(order.tolist()).loader(BATCH_SIZE):
            if ctx.interrupted():
                raise Interruption("stopped while looking at the teacher")
            forward = partial(_recalled, remembered, order[batch.index], ctx.output) if remembered else teacher
            predicted = ctx.decode(forward, batch.inputs).cpu()
            scores.append(ctx.score(predicted, batch.targets).double().cpu())
            parts.append(_sure(predicted, batch, temperature, ctx.labelling) if ctx.logits else None)
            advance(len(batch.index))
    whole = torch.cat(scores)
    return Answers(whole[~whole.isnan()].numpy(), joined(parts))  # NaN: nothing of an example counts


def _tells_all(cache: CachedValues | None, ctx: Context) -> bool:
    """Whether cached logits are whole, of the examples as they are, and all that decoding wants."""
    plain = ctx.augment is None and ctx.decode == Output(ctx.output)
    if cache is None or not plain or cache.names != ["logits"] or cache.ragged:
        return False
    return cache.flat or ctx.train.collate is None  # which may pad these examples to another length


def _recalled(cache: CachedValues, index: Tensor, output: str | None, _: Inputs) -> Outputs:
    return {output or "logits": cache(index, 0)["logits"]}


def _sure(predicted: Tensor, batch: Batch, temperature: float | None, labelling: Labelling) -> Sureness | None:
    """Of the positions of logits that have a class as their target; None where targets are no classes."""
    logits, numbers = labelling.logits(predicted), labelling.numbers(predicted, batch.targets)
    if numbers is None or logits.shape[-1] < 2:
        return None
    counted = ((numbers >= 0) & (numbers < logits.shape[-1])).cpu()
    return sureness(logits[counted], numbers.cpu()[counted], temperature or 1.0)


def _described(answers: Answers) -> dict[str, JsonValue]:
    """The figures of a split, as they stand in the record."""
    score = float(answers.scores.mean()) if len(answers.scores) else None
    figures: dict[str, JsonValue] = {"examples": len(answers.scores), "score": score}
    if sure := answers.sure:
        spread = float(sure.entropy.mean())
        figures |= {
            "accuracy": float(sure.right.mean()),
            "entropy": spread,
            "entropy_share": spread / math.log(sure.classes),
            "confidence": float(sure.confidence.mean()),
            "calibration_error": calibration_error(sure.confidence, sure.right),
        }
    return figures


def _weak(validation: Sureness) -> str:
    """Not surely better than to answer the commonest class: a rule that holds for any number and balance of classes."""
    commonest = np.bincount(validation.targets).argmax()
    always = (validation.targets == commonest).astype(np.float64)
    if drop(always, validation.right).low > 0:
        return ""
    return (
        f"is weak: right on {validation.right.mean():.1%} of the validation data, where to answer the commonest class "
        f"is right on {always.mean():.1%}; a student learns little from it. Train it longer, or take another"
    )


def _certain(softened: float, temperature: float) -> str:
    """Soft targets that are hardly more than labels."""
    if softened >= SURE:
        return ""
    return (
        "is so sure of the training data that its soft targets say little more than labels: at temperature "
        f"{temperature:g} their mean entropy is {softened:.2%} of the largest possible. Raise the temperature, "
        "augment, or take an earlier checkpoint"
    )


def _overconfident(sure: Sureness, split: str) -> str:
    """Confidence that is far above accuracy, and surely above."""
    doubt = 2 * float((sure.confidence - sure.right).std()) / math.sqrt(len(sure.right))
    if sure.gap <= max(GAP, doubt):
        return ""
    error = calibration_error(sure.confidence, sure.right)
    return (
        f"is over-confident on the {split} data: {sure.confidence.mean():.1%} sure and {sure.right.mean():.1%} right, "
        f"calibration error {error:.3f}. Raise the temperature, augment, or take an earlier checkpoint"
    )


def _shifted(what: str, shift: Shift) -> str:
    """Training and validation data that the teacher sees as different."""
    if shift.p is None or shift.p >= SHIFT_P or shift.effect <= SHIFT:
        return ""
    return (
        f"sees training and validation data as different in {what}: by {shift.effect:.3f} (p = {shift.p:.1g}). "
        "Split them at random from the same data, or distill on data like those that the model will meet"
    )


def _faultless(train: Sureness, validation: Sureness) -> str:
    """No error on train, and surely errors on validation: what it knows of its own doubts is not in the data."""
    right, count = int(validation.right.sum()), len(validation.right)
    if train.right.min() < 1 or scipy.stats.binomtest(right, count).proportion_ci(LEVEL).high >= PERFECT:
        return ""
    return (
        f"is right on all of the training data and on {right / count:.1%} of the validation data: it has memorised "
        "the former, or they were filtered to what it gets right. Keep the examples that it gets wrong, augment, or "
        "distill on data that it has not seen"
    )
