"""What distillation brought: its interval, how it is said, and a chain that compares, repeated and killed."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from pipeline import model as models
from pipeline.base.estimate import Estimate
from pipeline.errors import StageError
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.gain import are_shares, gain_of, gain_text, is_clear, lead, seeds_of
from pipeline.measure.statistics.means import drop
from pipeline.measure.statistics.pairs import Scores
from pipeline.records.figures import metrics
from pipeline.records.parts.stages import Gain, Spread
from pipeline.records.record import Record
from pipeline.report.terminal import show
from pipeline.run import executor
from pipeline.run.executor import Executor
from pipeline.run.store.gc import users
from pipeline.runner import resume, run
from tests.aliases import Make

CHAIN = """
task: {use: data.py}
model: {use: models.py:flat}
baseline:
  - {use: train.supervised, epochs: 2, learning_rate: 0.01}
stages:
  - use: distill.logits
    student: {use: models.py:flat}
    epochs: 2
    learning_rate: 0.01
    control: true
    seeds: 2
"""


def right(share: float, count: int = 200, seed: int = 0) -> Scores:
    return (np.random.default_rng(seed).uniform(size=count) < share).astype(float)


def test_one_seed_is_the_paired_interval_of_student_and_control() -> None:
    own, control = right(0.9, seed=1), right(0.8, seed=2)
    gain = gain_of(own, {"control": control})
    assert Estimate(value=gain.value, low=gain.low, high=gain.high) == drop(control, own) == gain.by_seed[0]
    assert gain.value == pytest.approx(own.mean() - control.mean())
    assert (gain.deviation, gain.control_drop, gain.control_matches) == (None, None, None)


def test_several_seeds_add_the_doubt_of_seeds_to_that_of_examples() -> None:
    draw = np.random.default_rng(0)
    firsts, seconds = draw.normal(1, 1, (3, 50)), draw.normal(0, 1, (3, 50))
    found = lead(list(firsts), list(seconds))
    per_example, per_seed = (firsts - seconds).mean(0), (firsts - seconds).mean(1)
    a, b = per_example.var(ddof=1) / 50, per_seed.var(ddof=1) / 3
    reach = np.hypot(stats.t.ppf(0.975, 49) * np.sqrt(a), stats.t.ppf(0.975, 2) * np.sqrt(b))
    assert (found.low, found.high) == pytest.approx((per_seed.mean() - reach, per_seed.mean() + reach))
    assert found.value == pytest.approx(per_seed.mean())


def test_seeds_that_agree_on_many_right_or_wrong_examples_give_the_interval_of_agresti_and_min() -> None:
    """All seeds alike: what is left is Wald's interval of the table with half an example more in each cell."""
    own, control = right(0.9, 5000, 1), right(0.8, 5000, 2)
    found = lead([own] * 3, [control] * 3)
    lost, gained, total = ((own > control).sum() + 0.5, (control > own).sum() + 0.5, 5002)
    width = np.sqrt(lost + gained - (lost - gained) ** 2 / total) / total
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * width, rel=1e-3)


def test_an_interval_has_width_where_nothing_differs_and_ends_at_one() -> None:
    same = right(0.9)
    found = lead([same, same], [same, same])
    assert found.low < 0 < found.high
    certain = lead([np.ones(8)] * 2, [np.zeros(8)] * 2)
    assert (certain.value, certain.high) == (1.0, 1.0)
    assert certain.low < 1
    real = np.linspace(2, 3, 9)
    assert lead([real, real], [real, real]) == Estimate(value=0, low=0, high=0)


def test_the_interval_covers_the_truth_though_seeds_differ() -> None:
    draw, hits = np.random.default_rng(0), 0
    for _ in range(200):
        hard = draw.normal(size=150)
        made = [(draw.normal(0, 0.5, 150) + hard + 1 + draw.normal(0, 0.2) > 0).astype(float) for _ in range(6)]
        found = lead(made[:3], made[3:])
        hits += found.low <= 0 <= found.high
    assert hits >= 180


def test_pairs_are_of_one_seed_and_a_control_without_its_student_is_left_out() -> None:
    own, other = right(0.9, seed=1), right(0.85, seed=2)
    control, control_1 = right(0.8, seed=3), right(0.75, seed=4)
    named = {"control": control, "student_1": other, "control_1": control_1, "control_2": own, "mine": control}
    gain = gain_of(own, named)
    assert [g.value for g in gain.by_seed] == pytest.approx(
        [own.mean() - control.mean(), other.mean() - control_1.mean()]
    )
    assert gain.student == Spread(mean=gain.student.mean, deviation=gain.student.deviation, count=2)
    assert gain.deviation == pytest.approx(np.std([g.value for g in gain.by_seed], ddof=1))
    assert gain.control.deviation == pytest.approx(np.std([control.mean(), control_1.mean()], ddof=1))
    assert seeds_of(own, named) == gain.student


def test_without_a_control_there_is_no_gain_and_without_seeds_no_deviation() -> None:
    own = right(0.9)
    assert gain_of(own, {"student_1": right(0.8)}) is None
    assert seeds_of(own, {"control": right(0.8)}) is None
    assert seeds_of(own, {"student_1": right(0.8)}).mean == pytest.approx((own.mean() + right(0.8).mean()) / 2)


@pytest.mark.parametrize(("lost", "expected"), [(0, True), (30, False)])
def test_labels_alone_match_the_teacher_where_a_control_is_less_than_a_point_behind(lost: int, expected: bool) -> None:
    baseline = right(0.9, 2000)
    control = baseline.copy()
    control[np.flatnonzero(baseline)[:lost]] = 0
    gain = gain_of(control, {"control": control}, baseline)
    assert gain.control_drop == drop(control, baseline)
    assert gain.control_matches is expected


def test_a_point_means_nothing_for_other_scores() -> None:
    assert gain_of(right(0.9) * 40, {"control": right(0.8) * 40}, right(0.9) * 40).control_matches is None
    assert are_shares(right(0.9))
    assert not are_shares(right(0.9), -right(0.5))


def gain(value: float, low: float, high: float, **changes: Any) -> Gain:
    one = Estimate(value=value, low=low, high=high)
    given: dict[str, Any] = {"student": Spread(mean=0.981), "control": Spread(mean=0.969), "by_seed": [one]}
    return Gain(**one.model_dump(), **{**given, **changes})


SEVERAL: dict[str, Any] = {
    "student": Spread(mean=0.981, deviation=0.002, count=3),
    "control": Spread(mean=0.969, deviation=0.004, count=3),
    "by_seed": [Estimate(value=0, low=0, high=0)] * 3,
    "deviation": 0.003,
}
MATCHED: dict[str, Any] = {"control_matches": True, "control_drop": Estimate(value=-0.001, low=-0.006, high=0.004)}


@pytest.mark.parametrize(("found", "expected"), [
    (gain(0.012, 0.004, 0.021, **SEVERAL),
     "distillation brought +1.2 points [0.4, 2.1] over labels alone "
     "(3 seeds: 0.981 +- 0.002 against 0.969 +- 0.004)"),
    (gain(0.012, 0.004, 0.021),
     "distillation brought +1.2 points [0.4, 2.1] over labels alone (one seed: 0.981 against 0.969)"),
    (gain(0.001, -0.006, 0.008),
     "distillation brought nothing that 1,449 examples can show: +0.1 points [-0.6, 0.8] "
     "(one seed: 0.981 against 0.969). `seeds: 3` would tell luck from gain"),
    (gain(-0.0001, -0.006, 0.008, **SEVERAL),
     "distillation brought nothing that 1,449 examples can show: +0.0 points [-0.6, 0.8] "
     "(3 seeds: 0.981 +- 0.002 against 0.969 +- 0.004). More test examples would tell"),
    (gain(-0.02, -0.03, -0.01),
     "labels alone did better: distillation brought -2.0 points [-3.0, -1.0] (one seed: 0.981 against 0.969). "
     "Try other settings of the stage, or train.supervised, which needs no teacher"),
    (gain(0.012, 0.004, 0.021, **MATCHED),
     "distillation brought +1.2 points [0.4, 2.1] over labels alone (one seed: 0.981 against 0.969); labels "
     "alone would have matched the teacher: +0.1 points [-0.4, 0.6]. "
     "A smaller student would show what the teacher is worth"),
])  # fmt: skip
def test_it_is_said_plainly(found: Gain, expected: str) -> None:
    assert gain_text(found, examples=1449, shares=True) == expected


def test_only_a_gain_that_labels_alone_did_not_make_needless_is_clear() -> None:
    assert is_clear(gain(0.012, 0.004, 0.021))
    assert not is_clear(gain(0.012, 0.004, 0.021, **MATCHED))
    assert not is_clear(gain(0.001, -0.006, 0.008))


def test_scores_that_are_no_shares_are_told_as_they_are() -> None:
    text = gain_text(gain(1.25, 0.5, 2), examples=10, shares=False, teacher="baseline")
    assert text.startswith("distillation brought +1.25 of score [0.5, 2] over labels alone")


@pytest.fixture
def compared(kept: dict[str, Record], quick: Make) -> Record:
    """One run for the tests that only look at it."""
    if not kept:
        kept["record"] = made(quick(CHAIN))
    return kept["record"]


def made(chain: Path, **given: Any) -> Record:
    """A run beside its pipeline file, with a store of its own."""
    return run(chain, runs=chain.parent / "runs", track=False, **given)


def scores(record: Record, predictions: str) -> Scores:
    return np.asarray(Evaluation.load(Path(record.folder) / predictions).scores.numpy())


def test_a_chain_compares_with_labels_alone_and_other_seeds(compared: Record) -> None:
    (stage,) = compared.stages
    assert set(stage.comparisons) == {"control", "student_1", "control_1"}
    folder = Path(compared.folder)
    for name, other in stage.comparisons.items():
        assert other.folder == f"stages/0-distill.logits/comparisons/{name}/model"
        assert other.score == scores(compared, other.predictions).mean()
        assert (folder / other.file).stat().st_size > 0
        assert other.key in stage.uses
        loaded = models.load(folder / other.folder, folder.parents[1])
        assert sum(p.numel() for p in loaded.module.parameters()) == stage.params  # type: ignore[union-attr]
    assert len({stage.digest, *(other.digest for other in stage.comparisons.values())}) == 4


def test_the_gain_is_that_of_the_saved_predictions(compared: Record) -> None:
    (stage,) = compared.stages
    others = {name: scores(compared, other.predictions) for name, other in stage.comparisons.items()}
    own, baseline = scores(compared, stage.predictions), scores(compared, compared.baseline.predictions)  # type: ignore[union-attr]
    assert stage.gain == gain_of(own, others, baseline, compared.seed)
    expected = (own.mean() - others["control"].mean() + others["student_1"].mean() - others["control_1"].mean()) / 2
    assert (stage.gain.value, stage.seeds) == (pytest.approx(expected), stage.gain.student)


def test_the_terminal_and_mlflow_are_told(compared: Record) -> None:
    (stage,) = compared.stages
    told = [text for text in (*compared.notes, *compared.warnings) if "distillation brought" in text]
    assert len(told) == 1
    assert told[0].startswith("stages[0] (distill.logits): ")
    assert "2 seeds: " in told[0]
    printed = io.StringIO()
    show(compared, Console(file=printed, width=1000))
    assert told[0] in printed.getvalue()
    figures = metrics(stage)
    assert figures["gain"] == stage.gain.value
    assert figures["gain_low"] <= figures["gain"] <= figures["gain_high"]
    assert figures["control_score"] == stage.gain.control.mean
    assert {"gain_deviation", "student_score", "student_score_deviation", "control_score_deviation"} <= set(figures)
    assert all(isinstance(value, float | int) for value in figures.values())


def test_notes_are_printed_and_are_no_warnings(compared: Record) -> None:
    printed = io.StringIO()
    show(compared.model_copy(update={"notes": ["it brought [something]"], "warnings": []}), Console(file=printed))
    lines = printed.getvalue().splitlines()
    assert "it brought [something]" in lines
    assert "warning" not in "".join(lines[: lines.index("it brought [something]") + 1])


def test_the_record_comes_back_and_its_schema_knows_the_fields(compared: Record) -> None:
    found = Record.load(Path(compared.folder)) if Path(compared.folder).exists() else compared
    assert found.stages[0].gain == compared.stages[0].gain
    assert {"Gain", "Comparison", "Spread"} <= set(Record.model_json_schema()["$defs"])


def told(record: Record) -> dict[str, Any]:
    """A record but for its times, its names and what was cached."""
    found: dict[str, Any] = json.loads(record.model_dump_json(exclude={"run", "folder", "started", "environment"}))
    for made in (found["baseline"], *found["stages"]):
        for name in ("seconds", "finished", "cached"):
            del made[name]
    return found


def test_a_second_run_computes_nothing_and_says_the_same(quick: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = quick(CHAIN)
    first = made(chain)

    def never(*args: Any) -> None:
        raise AssertionError("it was computed again")

    monkeypatch.setattr(Executor, "_run", never)
    monkeypatch.setattr(executor, "evaluate_into", never)
    second = made(chain)
    assert second.stages[0].cached
    assert told(second) == told(first)
    held = users(Path(first.folder).parent)
    for other in first.stages[0].comparisons.values():
        assert {first.run, second.run} <= set(held[other.key])


def test_a_run_that_fails_while_it_measures_a_comparison_goes_on(quick: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, evaluate = quick(CHAIN), executor.evaluate_into
    calls: list[int] = []

    def failing(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 4:  # baseline, student, control, and here
            raise StageError("the disk went away")
        evaluate(*args)

    monkeypatch.setattr(executor, "evaluate_into", failing)
    with pytest.raises(StageError, match="the disk went away"):
        made(chain)
    monkeypatch.setattr(executor, "evaluate_into", evaluate)
    (folder,) = (path.parent for path in (chain.parent / "runs").glob("*/record.json"))
    resumed = resume(folder, track=False)
    whole = made(chain)
    assert told(resumed) == told(whole)
    assert resumed.stages[0].gain is not None


def test_seeds_without_a_control_give_mean_and_deviation_and_no_gain(quick: Make) -> None:
    (stage,) = made(quick(CHAIN), overrides=["stages.0.control=false"]).stages
    assert (set(stage.comparisons), stage.gain) == ({"student_1"}, None)
    expected = [stage.score, stage.comparisons["student_1"].score]
    assert stage.seeds == Spread(mean=float(np.mean(expected)), deviation=float(np.std(expected, ddof=1)), count=2)
    assert "gain" not in metrics(stage)
    assert "student_score_deviation" in metrics(stage)


def test_what_a_stage_of_the_baseline_says_is_repeated(quick: Make) -> None:
    record = made(quick(CHAIN.replace("    seeds: 2\n", "").replace("stages:\n", "") + "stages:\n  - {use: look.py}\n"))
    assert any(
        text.startswith("baseline[1] (distill.logits): ") and "Compare in `stages:`" in text for text in record.warnings
    )
    assert record.baseline.reports["1.teacher"]
