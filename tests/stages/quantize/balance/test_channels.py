import numpy as np
import pytest

from stages.quantize.balance.channels import inputs, outputs, times_inputs, times_outputs
from tests.graphs import node

RNG = np.random.default_rng(0)
CASES = {
    "conv": (node("Conv", ["x", "w"], ["y"]), (6, 4, 3, 3)),
    "grouped": (node("Conv", ["x", "w"], ["y"], group=2), (6, 2, 3, 3)),
    "depthwise": (node("Conv", ["x", "w"], ["y"], group=6), (6, 1, 3)),
    "gemm": (node("Gemm", ["x", "w"], ["y"]), (4, 6)),
    "turned": (node("Gemm", ["x", "w"], ["y"], transB=1), (6, 4)),
    "matmul": (node("MatMul", ["x", "w"], ["y"]), (4, 6)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_peak_of_a_channel_follows_its_factor(name: str) -> None:
    layer, shape = CASES[name]
    weight = RNG.normal(size=shape)
    for peaks, times, count in ((outputs, times_outputs, 6), (inputs, times_inputs, 6 if name == "depthwise" else 4)):
        before = peaks(layer, weight)
        factors = RNG.uniform(0.5, 2, count)
        assert peaks(layer, times(layer, weight, factors)) == pytest.approx(before * factors)


def test_an_input_channel_of_a_group_is_met_by_its_outputs_alone() -> None:
    layer, shape = CASES["grouped"]
    weight = np.zeros(shape)
    weight[4, 1] = 3  # the second group, its second input: channel 3
    assert inputs(layer, weight).tolist() == [0, 0, 0, 3]
