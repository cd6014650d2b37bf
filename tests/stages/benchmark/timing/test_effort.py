from typing import Any

import pytest
from pydantic import ValidationError

from stages.benchmark.latency import Latency
from stages.benchmark.timing.effort import EFFORTS, Effort
from stages.benchmark.timing.percentiles import percentiles


@pytest.mark.parametrize(("name", "samples", "seconds", "told"), [
    ("quick", 64, 2, "p90_ms"),
    ("full", 662, 10, "p99_ms"),
])  # fmt: skip
def test_an_effort_is_spread_over_processes_and_tells_its_percentile(
    name: str, samples: int, seconds: float, told: str
) -> None:
    effort, stage = EFFORTS[name], Latency(effort=name)  # type: ignore[arg-type]
    assert (stage.rounds, stage.iterations) == (effort.rounds, None)
    assert stage.rounds * stage.seconds == pytest.approx(seconds)
    assert stage.rounds * effort.fewest >= samples
    values, _ = percentiles([1.0] * (stage.rounds * effort.fewest), "early stopping")
    assert values[told] == 1.0


def test_the_fewest_of_a_process_are_rounded_up() -> None:
    assert [Effort(rounds, 1, 64).fewest for rounds in (1, 5, 64, 65)] == [64, 13, 1, 1]


@pytest.mark.parametrize(
    "more", [{"rounds": 4}, {"seconds": 1}, {"iterations": 100}, {"rounds": 5, "seconds": 0.3}], ids=str
)
def test_what_an_effort_decides_is_not_set_beside_it(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"one of the two: `effort: quick` decides `\w+`"):
        Latency(effort="quick", **more)


def test_resolved_settings_are_settings() -> None:
    stage = Latency(effort="full", warmup=3)
    assert Latency.model_validate(stage.model_dump(mode="json")) == stage
    assert Latency().effort is None


def test_no_effort_decides_nothing() -> None:
    assert Latency(effort=None, rounds=2).rounds == 2


@pytest.mark.parametrize("wrong", ["quik", 5, ["quick"]])
def test_an_unknown_effort_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError, match="effort\n  Input should be 'quick' or 'full'"):
        Latency(effort=wrong)
