from typing import Any

import numpy as np
import pytest

from stages.quantize.graphs.masks import hides, masked, touching
from tests.graphs import graph, node

SCORES = np.random.default_rng(0).normal(size=200)


VALUES: dict[str, tuple[Any, bool]] = {
    "one of a mask": ([*SCORES, -1e4], True),
    "scores below": ([*SCORES, *(SCORES - 1e4)], True),
    "one above": ([*SCORES, 1e9], True),
    "infinite": ([*SCORES, -np.inf], True),
    "no number": ([0.0, 0.0, np.nan], True),
    "scores": (SCORES, False),
    "features in large units": (SCORES * 1e6, False),
    "a long tail": (np.exp(6 * SCORES), False),
    "a mask by itself, which 8 bits hold": ([0.0, 0.0, -1e4], False),
    "a sparse channel": ([1e-6, 2e-6, 50.0], False),
    "nothing": ([], False),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_that_8_bits_lose_beside_others(case: str) -> None:
    values, expected = VALUES[case]
    assert hides(np.array(values, np.float32)) is expected


def test_a_mask_is_followed_from_its_constant_to_the_softmax_and_no_further() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["s"], name="product"),
        node("Expand", ["low", "shape"], ["l"], name="expand"),
        node("Where", ["is_pad", "l", "s"], ["a"], name="where"),
        node("Transpose", ["a"], ["t"], name="turn"),
        node("Softmax", ["t"], ["p"], name="softmax"),
        node("MatMul", ["p", "w"], ["o"], name="last"),
        node("Mul", ["o", "thousand"], ["m"], name="times"),
        node("MatMul", ["m", "w"], ["y"], name="after"),
    ]
    weights = {"w": np.eye(4), "low": np.float32(-1e9), "shape": np.array([4, 4]), "thousand": np.float32(1000)}
    proto = graph(nodes, {"x": [4, 4], "is_pad": (9, [4, 4])}, {"y": [4, 4]}, weights)
    values = masked(proto.graph)
    assert values == {"low", "l", "a", "t"}
    assert touching(proto.graph, values) == ["expand", "where", "turn", "softmax"]
