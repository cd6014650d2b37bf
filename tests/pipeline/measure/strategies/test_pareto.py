"""The front against its definition, and the choice, which looks at no test figure."""

from itertools import product
from math import inf, nan
from typing import Any, get_args

import numpy as np
import pytest

from pipeline.base.estimate import Estimate
from pipeline.build.config import Axis
from pipeline.measure.strategies.pareto import AXES, Sense, choose, front, front_of
from pipeline.records.comparison import StrategyRecord, Timing
from pipeline.records.parts.stages import Spread

OF_TEST = {"score", "retention", "drop", "verdicts", "claim"}


class Poisoned(StrategyRecord):
    """Raises when a figure of the test split is read."""

    def __getattribute__(self, name: str) -> Any:
        if name in OF_TEST:
            raise AssertionError(f"`{name}` is of the test split")
        return super().__getattribute__(name)


def strategy(name: str, kept: float | None = 1.0, **figures: Any) -> StrategyRecord:
    estimate = None if kept is None else Estimate.model_construct(value=kept, low=kept - 0.02, high=kept + 0.02)
    poison = Estimate(value=9.0, low=9.0, high=9.0)
    given = {field: info.default for field, info in StrategyRecord.model_fields.items() if field != "name"}
    given |= {"validation_retention": estimate, "score": Spread(mean=9.0), "retention": poison, "drop": poison}
    return Poisoned.model_construct(name=name, **{**given, "verdicts": ["fail"], **figures})


def test_the_poison_works() -> None:
    with pytest.raises(AssertionError, match="`retention` is of the test split"):
        _ = strategy("a").retention


HAND = {"a": [1, 0.90], "b": [2, 0.95], "c": [3, 0.94], "d": [4, 0.99], "e": [4, 0.98]}
TIES = {"a": [1, 1], "b": [1, 1], "c": [1, 2], "d": [2, 1]}


@pytest.mark.parametrize(("points", "senses", "expected"), [
    (HAND, ["least", "most"], {"a", "b", "d"}),
    (HAND, ["most", "most"], {"d"}),
    (HAND, ["least", "least"], {"a"}),
    (TIES, ["least", "least"], {"a", "b"}),  # equal points stay, and a tie on one axis is dominated
    ({"a": [inf, 2.0], "b": [1.0, 1.0]}, ["least", "most"], {"a", "b"}),  # infinity is a figure
    ({}, ["least", "most"], set()),
])  # fmt: skip
def test_front_of_two_axes_by_hand(points: Any, senses: list[Sense], expected: set[str]) -> None:
    assert front(points, senses) == expected


@pytest.mark.parametrize("missing", [nan, None])
def test_a_point_that_lacks_a_figure_is_left_out_and_beats_none(missing: float | None) -> None:
    assert front({"a": [1.0, missing], "b": [2.0, 0.5], "c": [missing, 1.0]}, ["least", "most"]) == {"b"}
    assert front({"a": [missing, missing]}, ["least", "most"]) == set()


def test_a_figure_for_each_axis() -> None:
    with pytest.raises(ValueError, match="zip"):
        front({"a": [1.0]}, ["least", "most"])


@pytest.mark.parametrize("senses", [*product(("least", "most"), repeat=2), *product(("least", "most"), repeat=3)])
def test_front_is_its_definition(senses: tuple[Sense, ...]) -> None:
    draw = np.random.default_rng(len(senses))
    # Few values, so that there are ties.
    points = {str(i): row for i, row in enumerate(draw.integers(0, 6, (60, len(senses))).astype(float).tolist())}
    signs = np.array([1 if sense == "least" else -1 for sense in senses])
    costs = {name: signs * np.array(row) for name, row in points.items()}
    expected = {
        name
        for name, cost in costs.items()
        if not any((other <= cost).all() and (other != cost).any() for other in costs.values())
    }
    found = front(points, senses)
    assert found == expected
    assert 0 < len(found) < 60
    # What is dominated can go without changing the front; the order of points means nothing.
    assert front({name: points[name] for name in reversed(points) if name in found}, senses) == found


def test_every_axis_of_the_config_can_be_read() -> None:
    assert set(AXES) == set(get_args(Axis))
    timings = [Timing(runtime="r", threads=1, batch=n, value=0.2 * n) for n in (1, 2)]
    figures = {"size_bytes": 1.0, "payload_bytes": 2.0, "params": 3.0, "macs": 4.0, "latency": timings, "seconds": 5.0}
    full = strategy("a", 0.97, **figures)
    expected = {"size": 1, "payload": 2, "params": 3, "macs": 4, "retention": 0.97, "latency": 0.2, "seconds": 5}
    assert {name: facts.read(full) for name, facts in AXES.items()} == expected
    assert {name for name, facts in AXES.items() if facts.sense == "most"} == {"retention"}
    empty = strategy("b", None)
    assert [facts.read(empty) for facts in AXES.values()] == [None] * len(AXES)


def test_front_of_strategies_is_on_validation() -> None:
    strategies = [
        strategy("a", 0.9, size_bytes=10.0, macs=5.0),
        strategy("b", 0.8, size_bytes=20.0, macs=1.0),
        strategy("c", None, size_bytes=1.0, macs=1.0),
    ]
    assert front_of(strategies, ["size", "retention"]) == {"a"}
    assert front_of(strategies, ["size", "retention", "macs"]) == {"a", "b"}


FIVE = [
    strategy("prune", 0.99, size_bytes=50.0, seconds=1.0),
    strategy("quantize", 0.97, size_bytes=40.0, seconds=2.0),
    strategy("distill", 0.98, size_bytes=20.0, seconds=9.0),
    strategy("both", 0.975, size_bytes=10.0, seconds=8.0),
    strategy("all", 0.96999, size_bytes=5.0, seconds=10.0),
]


def test_the_best_that_keeps_enough_is_chosen_and_what_it_is_best_at_is_said() -> None:
    assert choose(FIVE, "size", 0.97) == ("both", "smallest of the 4 strategies that keep at least 0.97 on validation")
    assert choose(FIVE, "seconds", 0.97)[0] == "prune"
    assert choose(FIVE, "size", 0.5)[0] == "all"
    expected = "most accurate on validation of the 4 strategies that keep at least 0.97 on validation"
    assert choose(FIVE, "retention", 0.97) == ("prune", expected)
    assert choose(FIVE, "size", 0.985) == ("prune", "the only strategy that keeps at least 0.985 on validation")


def test_none_that_keeps_enough_says_which_comes_nearest_and_never_rounds_up() -> None:
    expected = "no strategy keeps at least 0.995 on validation; prune comes nearest with 0.990"
    assert choose(FIVE, "size", 0.995) == (None, expected)
    assert choose(FIVE[-1:], "size", 0.97)[1].endswith("all comes nearest with 0.96999")
    assert choose([strategy("a", np.nextafter(0.97, 0).item())], "size", 0.97)[0] is None


def test_ties_go_to_the_more_accurate_and_then_to_the_first() -> None:
    three = [strategy(name, kept, params=7.0) for name, kept in (("a", 0.98), ("b", 0.99), ("c", 0.99))]
    assert choose(three, "params", 0.9)[0] == "b"
    assert choose(three[::-1], "params", 0.9)[0] == "c"


def test_without_the_figure_none_is_chosen() -> None:
    reason = "no strategy that keeps at least 0.97 on validation has a figure of `latency`"
    assert choose(FIVE, "latency", 0.97) == (None, reason)
    timed = strategy("timed", 0.97, latency=[Timing(runtime="r", threads=1, batch=1, value=0.3)])
    name, reason = choose([*FIVE, timed, strategy("nan", 0.98, macs=nan)], "latency", 0.97)
    expected = (
        "fastest of the 6 strategies that keep at least 0.97 on validation, 5 of them without a figure of `latency`"
    )
    assert (name, reason) == ("timed", expected)


@pytest.mark.parametrize("strategies", [[], [strategy("a", None, size_bytes=1.0)], [strategy("b", nan)]])
def test_without_validation_there_is_no_choice(strategies: list[StrategyRecord]) -> None:
    assert choose(strategies, "size", 0.9) == (None, "no strategy has a retention on validation")
