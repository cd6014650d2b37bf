"""What distillation brought: a student against the same student trained on labels alone, and how to say it."""

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
import scipy

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import difference_text
from pipeline.measure.statistics.means import drop
from pipeline.measure.statistics.pairs import Scores, is_right_or_wrong
from pipeline.measure.statistics.resamples import percentile_interval
from pipeline.measure.statistics.shares import LEVEL
from pipeline.records.parts.stages import Gain, Spread

MARGIN = 0.01  # of score, within which labels alone are as good as the teacher


def gain_of(
    own: Scores,
    others: Mapping[str, Scores],
    baseline: Scores | None = None,
    seed: int = 0,
    metrics: Mapping[str, Mapping[str, Scores]] | None = None,
) -> Gain | None:
    """What distillation brought, with its paired 95 % interval; None where there is no control.

    Args:
        own: the student's scores (N,).
        others: scores on the same examples by name: `control`; `student_1` and `control_1` of a further seed, etc.
        baseline: the baseline's.
        seed: of the bootstrap.
        metrics: by the names in `others`, and "" for the student: each metric as
            `pipeline.measure.statistics.resamples.resampled` gives it.
    """
    students, controls = _by_seed(own, others)
    if not controls:
        return None
    gains = [drop(control, student, seed) for control, student in zip(controls, students, strict=True)]
    behind = None if baseline is None else lead([baseline] * len(controls), controls, seed)
    shares = baseline is not None and are_shares(baseline, *controls)
    return Gain(
        **lead(students, controls, seed).model_dump(),
        by_seed=gains,
        deviation=spread([gain.value for gain in gains]).deviation,
        student=spread([float(scores.mean()) for scores in students]),
        control=spread([float(scores.mean()) for scores in controls]),
        control_drop=behind,
        control_matches=behind.high < MARGIN if behind and shares else None,
        metrics=_metric_gains(metrics or {}),
    )


def metric_lead(firsts: Sequence[Scores], seconds: Sequence[Scores]) -> Estimate:
    """A metric of the first models minus that of the second, with a paired 95 % interval; a pair of models a seed.

    For one seed it is the percentile interval over resamples of the examples. For several the value is the mean over
    seeds, and each reach of the interval of that mean is joined with the reach of the seeds as in `lead`.

    Args:
        firsts, seconds: as `pipeline.measure.statistics.resamples.resampled` gives them, on the same examples.
    """
    differences = np.stack(firsts) - np.stack(seconds)
    estimate = percentile_interval(differences.mean(axis=0))
    if len(firsts) == 1:
        return estimate
    of_seeds = student_t(len(firsts)) * float(differences[:, 0].std(ddof=1)) / sqrt(len(firsts))
    below, above = (float(np.hypot(of_seeds, end - estimate.value)) for end in (estimate.low, estimate.high))
    return Estimate(value=estimate.value, low=estimate.value - below, high=estimate.value + above)


def seeds_of(own: Scores, others: Mapping[str, Scores]) -> Spread | None:
    """The mean scores of trainings with several seeds; None where there is one."""
    students = [own, *(scores for name, scores in others.items() if name.startswith("student_"))]
    return spread([float(scores.mean()) for scores in students]) if len(students) > 1 else None


def lead(firsts: Sequence[Scores], seconds: Sequence[Scores], seed: int = 0) -> Estimate:
    """Mean score of the first models minus that of the second, with a paired 95 % interval; a pair of models a seed.

    For one seed it is the interval of `pipeline.measure.statistics.means.drop`. For several the doubt has two sources:
    the examples, by the differences that are averaged over seeds, and the seeds, by their deviation; the squares of
    their reaches add up. What is counted in both makes the interval a little wide. Right-or-wrong scores get a
    pair more in each direction, half weighted, so that the interval has width even where nothing differs.

    Args:
        firsts, seconds: scores (N,) each, on the same examples.
        seed: of the bootstrap.

    Reference:
        Zou and Donner: Construction of confidence limits about effect measures: a general approach, Statistics in
        Medicine 27, 2008.
        Agresti and Min: Simple improved confidence intervals for comparing matched proportions, Statistics in
        Medicine 24, 2005, the interval "Wald+2".
    """
    if len(firsts) == 1:
        return drop(seconds[0], firsts[0], seed)
    differences = np.stack(firsts) - np.stack(seconds)
    by_example, by_seed = differences.mean(axis=0), differences.mean(axis=1)
    count, value = len(by_example), float(by_seed.mean())
    of_examples = float(by_example.var(ddof=1)) / count if count > 1 else 0.0
    right_or_wrong = is_right_or_wrong(*firsts, *seconds)
    if right_or_wrong:
        whole = count + 2
        of_examples = ((by_example**2).sum() + 1) / whole**2 - (by_example.sum() / whole) ** 2 / whole
    of_seeds = float(by_seed.var(ddof=1)) / len(by_seed)
    total = of_examples + of_seeds
    if total <= 0:
        return Estimate(value=value, low=value, high=value)
    reach = sqrt(of_seeds * student_t(len(by_seed)) ** 2 + of_examples * student_t(count) ** 2)
    furthest = 1.0 if right_or_wrong else np.inf
    return Estimate(value=value, low=max(value - reach, -furthest), high=min(value + reach, furthest))


def student_t(count: int) -> float:
    """How many standard errors of a mean of `count` values reach to either end of its interval."""
    return float(scipy.special.stdtrit(max(count - 1, 1), (1 + LEVEL) / 2))


def are_shares(*scores: Scores) -> bool:
    """Whether all scores are from 0 to 1, so that a hundredth is a point."""
    return all(bool((values >= 0).all() and (values <= 1).all()) for values in scores)


def is_clear(gain: Gain) -> bool:
    """Whether the teacher was worth it: a gain above zero that labels alone did not make needless."""
    return gain.low > 0 and not gain.control_matches


def gain_text(gain: Gain, *, examples: int, shares: bool, teacher: str = "teacher") -> str:
    """What distillation brought, in a line.

    Args:
        gain: what was found.
        examples: of the test split.
        shares: whether scores are from 0 to 1 and told in points.
        teacher: what to call the baseline.
    """
    difference, several = difference_text(gain, shares=shares, sign="+"), len(gain.by_seed) > 1
    if gain.low > 0:
        text = f"distillation brought {difference} over labels alone"
    elif gain.high < 0:
        text = f"labels alone did better: distillation brought {difference}"
    else:
        text = f"distillation brought nothing that {examples:,} examples can show: {difference}"
    text += f" ({_scores(gain)})"
    text += "".join(f"; {name} {m.value:+.3g} [{m.low:.3g}, {m.high:.3g}]" for name, m in gain.metrics.items())
    if gain.control_matches and gain.control_drop:
        control_lead = difference_text(-gain.control_drop, shares=shares, sign="+")
        text += f"; labels alone would have matched the {teacher}: {control_lead}"
    return text + _advice(gain, several, teacher)


def _advice(gain: Gain, several: bool, teacher: str) -> str:
    """What to do, where something is."""
    if gain.control_matches:
        return f". A smaller student would show what the {teacher} is worth"
    if gain.high < 0:
        return ". Try other settings of the stage, or train.supervised, which needs no teacher"
    if gain.low <= 0:
        return ". More test examples would tell" if several else ". `seeds: 3` would tell luck from gain"
    return ""


def _metric_gains(metrics: Mapping[str, Mapping[str, Scores]]) -> dict[str, Estimate]:
    """The gain of each metric that all models have."""
    gains = {}
    for name in metrics.get("", {}):
        others = {other: values[name] for other, values in metrics.items() if other and name in values}
        students, controls = _by_seed(metrics[""][name], others)
        if controls:
            gains[name] = metric_lead(students, controls)
    return gains


def _by_seed(own: Scores, others: Mapping[str, Scores]) -> tuple[list[Scores], list[Scores]]:
    """Students and their controls, of the seeds that have both."""
    students, controls = [], []
    for name, control in others.items():
        kind, _, number = name.partition("_")
        student = others.get(f"student_{number}") if number else own
        if kind == "control" and student is not None:
            students.append(student)
            controls.append(control)
    return students, controls


def spread(means: Sequence[float]) -> Spread:
    """The mean of scores of trainings with several seeds, and their deviation."""
    deviation = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return Spread(mean=float(np.mean(means)), deviation=deviation, count=len(means))


def _scores(gain: Gain) -> str:
    """3 seeds: 0.981 +- 0.002 against 0.969 +- 0.004."""
    if gain.student.deviation is None or gain.control.deviation is None:
        return f"one seed: {gain.student.mean:.4g} against {gain.control.mean:.4g}"
    sides = [f"{side.mean:.3f} +- {side.deviation:.3f}" for side in (gain.student, gain.control)]
    return f"{gain.student.count} seeds: {sides[0]} against {sides[1]}"
