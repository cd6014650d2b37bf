"""What a stage is told of scores elsewhere: of the model that comes in and of the baseline, as they were measured."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.records.record import Record
from pipeline.runner import run
from tests.aliases import Make
from tests.conftest import DATA
from tests.users import chain_of, stage_file

ASK = stage_file(
    """
    def elsewhere(batches):
        for inputs in batches:
            yield {name: value + self.shift * torch.eye(4)[0] for name, value in model.predict(inputs).items()}

    def told(one, predict):
        scored = ctx.scored(one, predict)
        return scored if isinstance(scored, str) else {**vars(scored), "drop": scored.drop.value,
            **{name: value and value.model_dump() for name, value in vars(scored).items() if "retention" in name}}

    strange = replace(model, edits=())
    ctx.report("itself", told(model, None))
    ctx.report("elsewhere", told(model, elsewhere))
    ctx.report("baseline", told(ctx.baseline, None) if ctx.baseline else None)
    ctx.report("strange", told(strange, elsewhere))
    return model
    """,
    "host_bound: ClassVar[bool] = True\nshift: float = 0.0",
)
FIT = stage_file(
    """
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        weight = module[1].weight.zero_().view(4, 8, 8)
        for label in range(4):
            row, column = 4 * (label // 2), 4 * (label % 2)
            weight[label, row : row + 4, column : column + 4] = 1
        weight.add_(self.noise * torch.randn(4, 8, 8))
        module[1].bias.zero_()
    return replace(model, module=module)
    """,
    "noise: float = 0.0",
)
CHAIN = chain_of("fit.py, noise: 0.3", "ask.py, shift: SHIFT", baseline="fit.py")
NOT_MEASURED = "the model was not measured before, so there is no score to pair it with"


def reports(quick: Make, chain: str, data: str = DATA) -> tuple[dict[str, Any], Record]:
    file = quick(chain, **{"ask.py": ASK, "fit.py": FIT, "data.py": data})
    record = run(file, runs=Path(file).parent / "runs", track=False)
    return record.stages[-1].reports, record


def test_a_model_is_paired_with_what_the_run_has_measured(quick: Make) -> None:
    told, record = reports(quick, CHAIN.replace("SHIFT", "4.0") + "budget: {drop: {max: 0.9}}\n")
    before, itself, there = record.stages[0], told["itself"], told["elsewhere"]
    assert record.baseline
    assert before.retention
    assert (itself["value"], itself["validation"]) == (before.score, before.validation_score)
    assert (itself["changed"], itself["worst"], itself["drop"]) == (0, None, 0)
    assert itself["retention"] == before.retention.model_dump()
    assert there["value"] < before.score
    assert there["drop"] == pytest.approx(before.score - there["value"])
    assert (there["lost"] - there["gained"]) / 128 == pytest.approx(there["drop"])
    assert (itself["keeps_budget"], there["keeps_budget"]) == (True, True)
    assert told["baseline"]["value"] == record.baseline.score
    assert told["strange"] == NOT_MEASURED
    assert record.test_uses == 2  # the baseline and the model, wherever they are scored


def test_the_budget_is_that_of_the_run(quick: Make) -> None:
    told, _ = reports(quick, CHAIN.replace("SHIFT", "4.0") + "budget: {retention: {min: 0.9}, on_inconclusive: pass}\n")
    assert (told["itself"]["keeps_budget"], told["elsewhere"]["keeps_budget"]) == (True, False)
    assert reports(quick, CHAIN.replace("SHIFT", "0.0"))[0]["elsewhere"]["keeps_budget"] is None


def test_in_the_baseline_nothing_is_measured_yet(quick: Make) -> None:
    baseline = CHAIN.replace("stages:", "  - {use: ask.py}\nstages:").replace("SHIFT", "0.0")
    _, record = reports(quick, baseline)
    assert record.baseline
    assert record.baseline.reports["1.itself"] == NOT_MEASURED


DRAWN = DATA.replace("Split(quadrants(128, 2))", "Split(quadrants(128, 2), varies=True)")
TWICE = DATA.replace("Split(quadrants(128, 2))", "Split(quadrants(128, 2)), decode=twice") + (
    "\ndef twice(forward, inputs):\n    return forward(inputs)['output'] + forward(inputs)['output']\n"
)


@pytest.mark.parametrize(("data", "itself", "reason"), [
    (DRAWN, str, "the examples of test or validation are others each time that they are read"),
    (TWICE, dict, "the task's decode or score: it asks the model more than once for a batch, or each time otherwise"),
])  # fmt: skip
def test_what_cannot_be_scored_elsewhere_is_told(quick: Make, data: str, itself: type, reason: str) -> None:
    told, _ = reports(quick, CHAIN.replace("SHIFT", "0.0"), data)
    assert isinstance(told["itself"], itself)
    assert told["elsewhere"] == reason
