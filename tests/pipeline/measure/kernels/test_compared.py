from pathlib import Path
from typing import Any

import pytest

from pipeline.measure.kernels.compared import compared
from pipeline.measure.kernels.seen import eye
from pipeline.measure.kernels.turns import FEWEST_ROUNDS, Timed, in_turns
from pipeline.model import OnnxModel
from tests.qdq import IMAGE, Builder


class Scripted:
    """An eye that sees these ratios, round by round, each time that it looks."""

    def __init__(self, *times: list[float]) -> None:
        self.times = list(times)

    def in_turns(self, one: Timed, other: Timed) -> tuple[list[float], list[float]]:
        ratios = self.times.pop(0)
        return [0.001] * len(ratios), [0.001 * ratio for ratio in ratios]

    def look(self, timed: Timed, runs: int) -> dict[str, Any]:
        raise NotImplementedError


FILE = Timed(Path("net.onnx"), {})


def ratio_of(*times: list[float]) -> tuple[float | None, bool, int]:
    eye = Scripted(*times)
    found = compared(eye, FILE, FILE)
    return found.ratio.value if found.ratio else None, found.slower, len(eye.times)


def test_what_is_surely_slower_is_so_both_times() -> None:
    slow, same = [1.2, 1.21, 1.19], [1.0, 1.01, 0.99]
    assert ratio_of(slow, slow) == (pytest.approx(1.2, abs=0.01), True, 0)
    assert ratio_of(slow, same) == (pytest.approx(1.1, abs=0.01), False, 0)


def test_what_is_not_slower_is_timed_once() -> None:
    assert ratio_of([0.5, 0.51, 0.49], []) == (pytest.approx(0.5, abs=0.01), False, 1)
    assert ratio_of([1.04, 1.04, 1.04], []) == (pytest.approx(1.04), False, 1)  # within what does not count
    assert ratio_of([0.9, 1.3, 1.6], []) == (pytest.approx(1.23, abs=0.01), False, 1)  # too doubtful


def test_two_rounds_tell_no_ratio() -> None:
    assert FEWEST_ROUNDS == 3
    assert ratio_of([3.0, 3.0], []) == (None, False, 1)


@pytest.mark.parametrize("channels", [4, 64])
def test_a_file_is_not_slower_than_itself(channels: int, tmp_path: Path) -> None:
    builder = Builder()
    value = builder.op("Conv", "x", builder.floats(channels, 3, 3, 3), pads=[1] * 4)
    model = builder.model(tmp_path, builder.op("Relu", value), IMAGE)
    file = Timed(model.path, {"x": model.example["x"].numpy()})
    with eye(model) as here:
        tries = [compared(here, file, file) for _ in range(40)]
    assert not any(one.slower for one in tries)
    assert all(one.ratio for one in tries)


def test_rounds_of_both_are_as_many(tmp_path: Path) -> None:
    builder = Builder()
    model: OnnxModel = builder.model(tmp_path, builder.op("Relu", "x"), IMAGE)
    file = Timed(model.path, {"x": model.example["x"].numpy(), "not an input": model.example["x"].numpy()})
    one, other = in_turns(file, file)
    assert len(one) == len(other) >= FEWEST_ROUNDS
    assert min(*one, *other) > 0
