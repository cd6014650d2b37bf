import numpy as np
import onnx
import pytest

from stages.quantize.packing.codes.writer import Writer
from stages.quantize.packing.floats import FEWEST, is_half, pack_floats, rounded_biases
from tests.graphs import graph, node

RNG = np.random.default_rng(0)


def test_a_half_is_told_by_its_bits() -> None:
    numbers = RNG.normal(size=20).astype(np.float16).astype(np.float32)
    assert is_half(numbers)
    assert is_half(np.array([-0.0, np.inf], np.float32))
    for odd in (1e-9, 70000.0, 0.1):
        assert not is_half(np.append(numbers, np.float32(odd)))


def test_floats_are_stored_as_halves_where_nothing_is_lost_and_short_ones_as_one() -> None:
    halves = {f"h{i}": RNG.integers(-9, 9, (2, 30)).astype(np.float32) for i in range(2)}
    floats = {f"f{i}": RNG.normal(size=5).astype(np.float32) for i in range(FEWEST)}
    wide = {"wide": RNG.normal(size=(3, 40)).astype(np.float32)}
    writer = Writer(20)
    stored = pack_floats(writer, halves | floats | wide, set())
    assert {name: tuple(how) for name, how in stored.items()} == (
        dict.fromkeys(halves, ("fp16", 120)) | dict.fromkeys(floats, ("fp32", 20))
    )
    proto = graph(writer.nodes, {}, {name: [*array.shape] for name, array in (halves | floats).items()}, writer.tensors)
    outputs = onnx.reference.ReferenceEvaluator(proto).run(None, {})
    for array, output in zip((halves | floats).values(), outputs, strict=True):
        assert array.dtype == output.dtype
        assert np.array_equal(array, output)


def test_few_floats_stay_where_they_are() -> None:
    writer = Writer(20)
    few = {"half": np.ones(4, np.float32), "vector": RNG.normal(size=3).astype(np.float32)}
    assert pack_floats(writer, few, set()) == {}
    assert not writer.nodes


def convolution(bias: float, times: int = 1) -> onnx.GraphProto:
    """A QDQ convolution with a bias of so many steps; other nodes may read it too."""
    step = np.float32(0.05) * np.array([0.01, 0.02], np.float32)
    nodes = [
        node("DequantizeLinear", ["q", "s"], ["x"]),
        node("DequantizeLinear", ["w", "t"], ["v"], axis=0),
        node("Conv", ["x", "v", "b"], ["y"]),
        *(node("Identity", ["b"], [f"again{i}"]) for i in range(times - 1)),
    ]
    weights = {"w": np.ones((2, 1, 1, 1), np.int8), "s": np.float32(0.05), "t": np.array([0.01, 0.02], np.float32)}
    weights["b"] = (bias * step).astype(np.float32)
    proto = graph(nodes, {"q": (onnx.TensorProto.UINT8, ["n", 1, 1, 1])}, {"y": ["n", 2, 1, 1]}, weights)
    return proto.graph


@pytest.mark.parametrize(("bias", "same"), [(3.2, True), (100.4, True), (40_001.0, False), (1e12, False)])
def test_a_bias_may_be_a_half_where_the_same_integers_come_of_it(bias: float, same: bool) -> None:
    body = convolution(bias)
    assert rounded_biases(body) == ({"b"} if same else set())
    steps = np.float32(0.05) * np.array([0.01, 0.02], np.float32)
    numbers = (bias * steps).astype(np.float32)
    with np.errstate(over="ignore"):
        halves = numbers.astype(np.float16).astype(np.float32)
    assert same == np.array_equal(np.rint(numbers / steps), np.rint(halves / steps))


def test_a_bias_that_others_read_stays() -> None:
    assert rounded_biases(convolution(3.2, times=2)) == set()
