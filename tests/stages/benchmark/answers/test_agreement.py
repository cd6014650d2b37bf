"""How far answers are apart: shares of an output's range, decisions, the worst example."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.base.targets.labelling import Labelling
from pipeline.errors import StageError
from stages.benchmark.answers.agreement import compare
from stages.benchmark.answers.distances import STEPS, TOLERANCE, rounds_values
from tests.graphs import products
from tests.packing import ternary

LOGITS = np.array([[0.0, 10.0], [4.0, 6.0], [5.0, 5.1], [10.0, 0.0]])
BATCHES = [{"output": LOGITS[:2]}, {"output": LOGITS[2:]}]


def moved(by: float) -> list[dict[str, np.ndarray]]:
    """The third example's first logit is another."""
    other = LOGITS.copy()
    other[2, 0] += by
    return [{"other name": other[:2]}, {"other name": other[2:]}]


def test_differences_are_shares_of_the_range_and_decisions_are_counted() -> None:
    agreement = compare(moved(0.5), BATCHES, TOLERANCE, Labelling())
    assert agreement.difference == pytest.approx(0.5 / 10)
    assert (agreement.examples, agreement.decisions, agreement.worst) == (4, 0.75, 2)
    assert not agreement.agrees
    assert agreement.json["agrees"] is False
    assert "up to 5.00% of an output's range" in str(agreement)
    assert "75.00% of decisions are the same" in str(agreement)


def test_rounding_agrees() -> None:
    assert compare(moved(0.009), BATCHES, TOLERANCE).agrees
    assert not compare(moved(0.05), BATCHES, TOLERANCE).agrees
    assert compare(moved(0.05), BATCHES, STEPS).agrees


def test_what_is_infinite_or_nan_in_both_is_the_same() -> None:
    values = np.array([[np.inf, np.nan, -np.inf, 1.0, 2.0]])
    agreement = compare([{"a": values}], [{"a": values}], TOLERANCE)
    assert (agreement.difference, agreement.decisions) == (0.0, None)
    assert compare([{"a": -values}], [{"a": values}], TOLERANCE).difference == np.inf


def test_nan_another_shape_and_fewer_outputs_are_failures() -> None:
    with pytest.raises(StageError, match="`output` is NaN where it is a number in ONNX Runtime"):
        compare(moved(np.nan), BATCHES, TOLERANCE)
    with pytest.raises(StageError, match=r"`output` has the shape \(1, 2\), and in ONNX Runtime \(2, 2\)"):
        compare([{"output": LOGITS[:1]}] * 2, BATCHES, TOLERANCE)
    with pytest.raises(StageError, match="it gives 2 outputs, and ONNX Runtime 1"):
        compare([{"a": LOGITS, "b": LOGITS}] * 2, BATCHES, TOLERANCE)


def test_each_output_has_its_own_range_and_one_that_is_not_by_example_hides_the_worst() -> None:
    reference = [{"small": np.array([0.0, 0.1]), "large": np.array([0.0, 100.0])}]
    own = [{"small": np.array([0.0, 0.05]), "large": np.array([1.0, 100.0])}]
    assert compare(own, reference, TOLERANCE).difference == pytest.approx(0.5)
    whole = [{"a": np.array([1.0, 2.0]), "mean": np.float64(3)}]
    assert compare(whole, whole, TOLERANCE).worst is None


def test_a_file_of_floats_is_told_from_one_that_rounds_values(tmp_path: Path) -> None:
    assert not rounds_values(products(tmp_path / "floats.onnx", 2).path)
    assert rounds_values(ternary(tmp_path / "packed.onnx").path) is False
