"""What a teacher is like: the figures in closed form, and each warning where it is due and nowhere else."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from pipeline.base.batches import Inputs, Outputs
from pipeline.base.world import World
from pipeline.context import Context
from pipeline.errors import Interruption
from pipeline.model import TorchModel
from pipeline.task import Output, Split, Task, correct, first_output
from stages.distill.logits import LogitDistillation
from stages.kd.diagnosis import EXAMPLES, Answers, answers_of, diagnose, findings
from stages.kd.inspection import confidence as of_confidence
from stages.kd.inspection.confidence import (
    Sureness,
    calibration_error,
    confidence_shift,
    entropy,
    prediction_shift,
    sureness,
)
from stages.trainer.loop import train
from stages.trainer.objective import Supervised
from stages.trainer.settings import TrainingSettings
from tests.aliases import Make
from tests.trained import kept_values, live_teacher, tiny_student


def answers(
    confidence: float = 0.9, accuracy: float = 0.9, *, count: int = 1000, skew: float = 0.0, seed: int = 0, **how: float
) -> Answers:
    """A teacher that is about as sure as told, and as often right; `skew` of its answers are moved to class 0."""
    draw, classes = torch.Generator().manual_seed(seed), 4
    predicted = torch.randint(0, classes, (count,), generator=draw)
    predicted[torch.rand(count, generator=draw) < skew] = 0
    sure = confidence + 0.1 * (1 - confidence) * torch.randn(count, generator=draw)
    sure = sure.clamp(1 / classes + 0.01, 0.9999).double()
    shares = ((1 - sure) / (classes - 1))[:, None].repeat(1, classes)
    shares[torch.arange(count), predicted] = sure
    targets = torch.where(torch.arange(count) >= round(accuracy * count), (predicted + 1) % classes, predicted)
    found = sureness(shares.log(), targets, how.get("temperature", 4.0))
    return Answers(found.right, found)


def warned(train: Answers, validation: Answers, temperature: float | None = 4.0) -> list[str]:
    return findings(train, validation, temperature)[1]


@pytest.mark.parametrize("classes", [2, 7])
def test_entropy_is_log_c_of_equal_logits_and_zero_of_a_sure_answer(classes: int) -> None:
    logits = torch.stack([torch.full((classes,), 3.0), 1e4 * torch.eye(classes)[0]]).double()
    assert torch.allclose(entropy(logits), torch.tensor([math.log(classes), 0.0]).double())


def test_entropy_is_scipys_and_softened_is_that_at_the_temperature() -> None:
    logits = torch.randn(50, 6, dtype=torch.float64) * 5
    assert np.allclose(entropy(logits).numpy(), stats.entropy(logits.softmax(-1).numpy(), axis=1))
    found = sureness(logits, torch.zeros(50, dtype=torch.int64), 3.0)
    assert np.allclose(found.softened, stats.entropy((logits / 3).softmax(-1).numpy(), axis=1))
    assert np.allclose(found.confidence, logits.softmax(-1).max(-1).values.numpy())
    assert np.array_equal(found.right, (logits.argmax(-1) == 0).numpy())


@pytest.mark.parametrize(("confidence", "right", "expected"), [
    ([1.0, 1.0], [1.0, 1.0], 0.0),
    ([0.9, 0.9], [1.0, 0.0], 0.4),
    ([0.5, 0.9], [1.0, 0.0], (0.5 + 0.9) / 2),  # two bins that would cancel in one
    ([0.75] * 4, [1.0, 1.0, 1.0, 0.0], 0.0),
    ([0.0, 0.2], [0.0, 0.0], 0.1),  # a confidence of zero has a bin
])  # fmt: skip
def test_calibration_error_of_constructed_cases(confidence: list[float], right: list[float], expected: float) -> None:
    assert calibration_error(np.array(confidence), np.array(right)) == pytest.approx(expected)


def test_calibration_error_is_that_of_a_loop_over_bins() -> None:
    draw = np.random.default_rng(0)
    confidence, right = draw.uniform(0, 1, 400), draw.integers(0, 2, 400).astype(float)
    total = 0.0
    for i in range(15):
        here = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if here.any():
            total += here.mean() * abs(confidence[here].mean() - right[here].mean())
    assert calibration_error(confidence, right) == pytest.approx(total)


def of_classes(counts: list[int], confidence: float = 0.9) -> Sureness:
    predicted = np.repeat(np.arange(len(counts)), counts)
    same = np.full(len(predicted), confidence)
    return Sureness(predicted, predicted, same, same, same, len(counts))


def test_prediction_shift_is_a_chi_square_test_with_rare_classes_taken_together() -> None:
    found = prediction_shift(of_classes([500, 300, 198, 1, 1]), of_classes([30, 40, 28, 1, 1]))
    expected = stats.chi2_contingency([[500, 300, 198, 2], [30, 40, 28, 2]], correction=False)
    assert found.p == pytest.approx(float(expected.pvalue))
    assert found.effect == pytest.approx(0.5 * (0.2 + 0.1 + 0.082 + 0.009 * 2))
    assert prediction_shift(of_classes([10, 0]), of_classes([10, 0])).p is None  # one class: nothing to test


def test_confidence_shift_looks_at_right_answers_alone() -> None:
    sure, other = of_classes([50, 50], 0.9), of_classes([50, 50], 0.7)
    found = confidence_shift(sure, other)
    assert (found.effect, found.distance) == (pytest.approx(0.2), 1.0)
    assert found.p == pytest.approx(0, abs=1e-10)
    wrong = replace(other, targets=1 - other.predicted)
    assert confidence_shift(sure, wrong).p is None
    assert confidence_shift(sure, of_confidence.joined([sure, wrong])).effect == pytest.approx(0)


def test_a_good_teacher_is_described_and_not_warned_of() -> None:
    report, texts = findings(answers(seed=1), answers(seed=2, count=200), 4.0)
    assert texts == []
    assert report["right_on_train"] == report["train"]["accuracy"] == pytest.approx(0.9)  # type: ignore[index, call-overload]
    assert report["validation"]["confidence"] == pytest.approx(0.9, abs=0.01)  # type: ignore[index, call-overload]
    assert 0 < report["train"]["entropy_share"] < report["softened_entropy_share"] < 1  # type: ignore[index, call-overload, operator]


def test_overfitting_alone_is_no_shift() -> None:
    """All right and sure of what it has seen, often wrong and a little less sure of what it has not."""
    texts = warned(answers(0.999, 0.995), answers(0.93, 0.85, count=180, seed=2))
    assert not [text for text in texts if "different" in text]


@pytest.mark.parametrize(("train", "validation", "temperature", "message"), [
    (answers(0.3, 0.3), answers(0.3, 0.25, count=200), 4.0, "is weak: right on 25.0%"),
    (answers(0.9999, 0.99, temperature=1), answers(0.97, 0.97), 1.0, "at temperature 1 their mean entropy is"),
    (answers(0.9, 0.7), answers(0.75, 0.7), 4.0, "over-confident on the training data: 90.0% sure and 70.0% right"),
    (answers(0.9, 0.9), answers(0.9, 0.7), 4.0, "over-confident on the validation data"),
    (answers(0.9, 0.9), answers(0.7, 0.7, seed=1), 4.0, "different in how sure it is of its right answers: by "),
    (answers(0.9, 0.9), answers(0.9, 0.9, skew=0.3, seed=1), 4.0, "different in which classes it predicts"),
    (answers(0.95, 1.0), answers(0.9, 0.9), 4.0, "right on all of the training data and on 90.0%"),
])  # fmt: skip
def test_each_warning_where_it_is_due(train: Answers, validation: Answers, temperature: float, message: str) -> None:
    texts = [text for text in warned(train, validation, temperature) if message in text]
    assert len(texts) == 1
    assert ". " in texts[0]  # what to do


def test_soft_targets_matter_only_where_the_student_sees_them() -> None:
    sharp, soft = (answers(0.9999, 0.99, temperature=temperature) for temperature in (1.0, 8.0))
    assert not [text for text in warned(sharp, answers(), None) if "soft targets" in text]
    assert not [text for text in warned(soft, answers(), 8.0) if "soft targets" in text]


def test_few_examples_show_no_shift() -> None:
    assert warned(answers(0.9, 0.9), answers(0.9, 0.9, count=12, skew=0.3, seed=1)) == []


def learned(tiny: Make, context: Make, epochs: int = 6) -> TorchModel:
    settings = TrainingSettings(epochs=epochs, learning_rate=0.01)
    ctx: Context = context()
    return train(tiny(width=16), Supervised(ctx), settings, ctx, "teacher")


def test_figures_are_those_of_the_teacher_on_the_data(tiny: Make, context: Make, task: Task) -> None:
    ctx = context()
    model = learned(tiny, context)
    found = answers_of(live_teacher(model, ctx), task.validation, ctx, 2.0)
    (batch,) = task.validation.loader(64)
    logits = next(iter(model.predict(batch.inputs).values()))
    assert found.scores.mean() == pytest.approx(float(correct(logits, batch.targets).mean()))
    assert found.sure.entropy.mean() == pytest.approx(float(entropy(logits.double()).mean()), abs=1e-5)
    assert np.array_equal(np.sort(found.sure.targets), np.sort(batch.targets.numpy()))


def silent(inputs: Inputs) -> Outputs:
    """A teacher that must not be asked."""
    raise AssertionError("the teacher was run")


def test_kept_logits_save_the_forward_and_give_the_same(tiny: Make, context: Make, task: Task) -> None:
    ctx = context()
    model = learned(tiny, context, 1)
    kept = kept_values(ctx, lambda inputs: {"logits": next(iter(model.predict(inputs).values()))})
    there = answers_of(silent, ctx.train, ctx, 4.0, kept)
    anew = answers_of(live_teacher(model, ctx), ctx.train, ctx, 4.0)
    assert np.allclose(there.sure.softened, anew.sure.softened, atol=1e-5)
    assert np.array_equal(there.scores, anew.scores)


@pytest.mark.parametrize("change", [{"augment": lambda x, *_: x}, {"decode": lambda f, x: first_output(f, x)}])
def test_kept_logits_are_unused_where_they_do_not_tell_all(tiny: Make, context: Make, task: Task, change: Any) -> None:
    ctx = context(**change)
    kept = kept_values(ctx, lambda inputs: {"logits": torch.zeros(len(inputs["input"]), 4)})
    with pytest.raises(AssertionError, match="the teacher was run"):
        answers_of(silent, ctx.train, ctx, None, kept)


def test_kept_logits_of_tokens_are_not_used_where_padding_may_differ(tiny: Make, context: Make, task: Task) -> None:
    def mean(predictions: Tensor, targets: Tensor) -> Tensor:
        return predictions.flatten(1).mean(1)

    for shape, used in (((4,), True), ((6, 4), False)):
        ctx = context(train=replace(task.train, collate=lambda rows: default_collate(rows)), score=mean)
        kept = kept_values(ctx, lambda inputs, shape=shape: {"logits": torch.zeros(len(inputs["input"]), *shape)})
        if used:
            assert answers_of(silent, ctx.train, ctx, None, kept).scores.tolist() == [0.0] * 256
            continue
        with pytest.raises(AssertionError, match="the teacher was run"):
            answers_of(silent, ctx.train, ctx, None, kept)


def test_kept_logits_have_the_name_of_the_output(tiny: Make, context: Make, task: Task) -> None:
    ctx = context(decode=Output("other"), output="other")
    kept = kept_values(ctx, lambda inputs: {"logits": torch.eye(4)[torch.zeros(len(inputs["input"])).long()]})
    found = answers_of(silent, ctx.train, ctx, None, kept)
    assert found.scores.sum() == sum(int(task.train[i][1]) == 0 for i in range(len(task.train)))


def test_a_large_split_is_sampled(tiny: Make, context: Make) -> None:
    many = Split(TensorDataset(torch.rand(EXAMPLES + 300, 1, 8, 8), torch.zeros(EXAMPLES + 300).long()))
    seen: list[int] = []

    def counting(inputs: Inputs) -> Outputs:
        seen.append(len(inputs["input"]))
        return {"logits": torch.zeros(len(inputs["input"]), 4)}

    assert len(answers_of(counting, many, context()).scores) == EXAMPLES == sum(seen)


def test_positions_without_a_class_are_left_out(context: Make) -> None:
    """Logits (N, L, C) with -100 at padding, as token classification has it."""
    targets = torch.tensor([[0, 1, -100], [2, -100, -100]])
    ctx = context(score=lambda p, t: (p.argmax(-1) == t).float().mean(-1))
    logits, rows = torch.eye(3)[targets.clamp(min=0)], TensorDataset(torch.arange(2).float()[:, None], targets)
    found = answers_of(lambda inputs: {"y": logits[inputs["input"][:, 0].long()]}, Split(rows), ctx)
    assert sorted(found.sure.targets.tolist()) == [0, 1, 2]
    assert found.sure.right.tolist() == [1.0, 1.0, 1.0]


def test_where_targets_are_no_classes_the_score_is_reported_alone(tiny: Make, context: Make) -> None:
    data, said = Split(TensorDataset(torch.rand(20, 1, 8, 8), torch.rand(20))), list[str]()
    ctx = context(score=lambda p, t: -((p.mean(-1) - t) ** 2), train=data, validation=data, warn=said.append)
    diagnose([live_teacher(tiny(), ctx)], ctx, 4.0)
    assert set(context.reports["teacher"]) == {"train", "validation"}
    assert set(context.reports["teacher"]["train"]) == {"examples", "score"}
    assert said == []


def test_without_logits_only_the_validation_data_are_scored(tiny: Make, context: Make) -> None:
    diagnose([live_teacher(tiny(), ctx := context(logits=False))], ctx)
    assert set(context.reports["teacher"]) == {"validation"}


class Second(World):
    """The second of two processes, to whom nobody speaks."""

    def __init__(self) -> None:
        super().__init__(rank=1, size=2)

    def any(self, flag: bool) -> bool:
        return flag


def test_several_teachers_have_a_report_each_and_other_processes_none(tiny: Make, context: Make) -> None:
    said: list[str] = []
    ctx = context(warn=said.append)
    pair = [live_teacher(tiny(), ctx), live_teacher(tiny(seed=1), ctx)]
    diagnose(pair, replace(ctx, world=Second()), 4.0)
    assert context.reports == {}
    diagnose(pair, ctx, 4.0)
    assert set(context.reports) == {"teacher", "teacher_1"}
    assert any(text.startswith("teachers[1] is weak") for text in said)  # untrained


def test_it_stops_where_a_stop_is_asked_for(tiny: Make, context: Make) -> None:
    ctx = context(interrupted=lambda: True)
    with pytest.raises(Interruption, match="looking at the teacher"):
        diagnose([live_teacher(tiny(), ctx)], ctx)


def noisy(split: Split, strength: float) -> Split:
    """The examples with the contrast taken out of them."""
    images = torch.stack([split[i][0]["input"] for i in range(len(split))])
    labels = torch.tensor([int(split[i][1]) for i in range(len(split))])
    return Split(TensorDataset(images.lerp(images.mean(dim=(1, 2, 3), keepdim=True), strength), labels))


def test_a_teacher_is_reported_and_other_validation_data_are_warned_of(tiny: Make, context: Make, task: Task) -> None:
    model, said = learned(tiny, context, 12), list[str]()
    stage = LogitDistillation(student=tiny_student(), epochs=1)
    stage.run(model, context(warn=said.append))
    assert said == []
    assert context.reports["teacher"]["train"]["examples"] == 256
    stage.run(model, context(warn=said.append, validation=noisy(task.validation, 0.75)))
    assert any("different in how sure it is" in text for text in said)


def test_validation_data_of_other_classes_are_noticed(tiny: Make, context: Make, task: Task) -> None:
    model, said = learned(tiny, context, 12), list[str]()
    chosen = [i for i in range(len(task.validation)) if int(task.validation[i][1]) < 2]
    ctx = context(warn=said.append, validation=task.validation.select(chosen))
    diagnose([live_teacher(model, ctx)], ctx, 4.0)
    assert any("different in which classes it predicts" in text for text in said)
