"""How a file is called for a batch of examples, against the same calls written out."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.forms.sandbox.calls import Calls, State, Value
from pipeline.forms.sandbox.frames import Array, Arrays

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.normal(size=(5, 3)).astype(np.float32)
SEQUENCES = GENERATOR.normal(size=(5, 4, 3)).astype(np.float32)


class Doubles:
    """Twice its input, for so many examples in each call."""

    def __init__(self, batch: int) -> None:
        self.batch, self.fed = batch, list[Arrays]()

    def __call__(self, feed: Arrays) -> dict[str, Array]:
        self.fed.append(feed)
        assert len(feed["x"]) == self.batch
        return {"y": 2 * feed["x"]}


@pytest.mark.parametrize(("batch", "count"), [(1, 5), (2, 3), (5, 1), (7, 1)])
def test_a_fixed_batch_is_filled_up_and_cut_again(batch: int, count: int) -> None:
    model, calls = Doubles(batch), Calls(batch)
    np.testing.assert_array_equal(calls.together(model, {"x": ROWS})["y"], 2 * ROWS)
    assert len(model.fed) == calls.count({"x": ROWS}) == len(list(calls.each(model, {"x": ROWS}))) == count
    assert len(model.fed) == count  # what the calls take was told without running them


def test_an_output_that_leaves_the_batch_of_one_out_gets_it_back() -> None:
    outputs = Calls(1).together(lambda feed: {"y": feed["x"][0], "mean": feed["x"].mean(keepdims=False)}, {"x": ROWS})
    np.testing.assert_array_equal(outputs["y"], ROWS)
    np.testing.assert_allclose(outputs["mean"], ROWS.mean(1), rtol=1e-6)


def accumulate(feed: Arrays) -> dict[str, Array]:
    """A state (1, N, 3) that adds up the steps times a rate, and what it is."""
    after = feed["h"] + feed["rate"] * feed["x"][None]
    return {"y": after[0], "hn": after}


def sums(batch: int | None) -> Calls:
    return Calls(
        batch=batch, axes={"h": 1, "hn": 1}, constants={"rate": Value("float32", (), 0.5)},
        states={"h": State("hn", Value("float32", (1, batch or 0, 3)))}, steps=("x",),
    )  # fmt: skip


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_a_state_goes_from_step_to_step_and_begins_anew_with_each_example(batch: int | None) -> None:
    outputs = sums(batch).together(accumulate, {"x": SEQUENCES})
    assert list(outputs) == ["y"]
    np.testing.assert_allclose(outputs["y"], 0.5 * SEQUENCES.cumsum(1), rtol=1e-5)


def test_calibration_sees_the_states_that_the_model_had() -> None:
    fed: Iterator[Arrays] = sums(1).each(accumulate, {"x": SEQUENCES[:1]})
    before = [feed["h"][0, 0] for feed in fed]
    np.testing.assert_allclose(before, 0.5 * np.vstack([np.zeros(3), SEQUENCES[0].cumsum(0)[:-1]]), rtol=1e-5)


def test_examples_go_in_on_the_axis_that_the_file_has_them() -> None:
    calls = Calls(axes={"x": 1, "y": 1})
    outputs = calls.together(lambda feed: {"y": feed["x"]} if feed["x"].shape == (3, 5) else {}, {"x": ROWS})
    np.testing.assert_array_equal(outputs["y"], ROWS)


def test_examples_whose_outputs_differ_in_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"its output `y` is \(1,\) for one .* and \(2,\) for another"):
        Calls(1).together(lambda feed: {"y": feed["x"][:, : 1 + int(feed["x"][0, 0] > 0)]}, {"x": ROWS})


@pytest.mark.parametrize("calls", [Calls(), Calls(1), sums(2)])
def test_what_is_saved_is_loaded(calls: Calls) -> None:
    assert Calls.from_json(json.loads(json.dumps(calls.to_json()))) == calls
