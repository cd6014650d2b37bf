import numpy as np
import pytest

from pipeline.errors import StageError
from stages.quantize.graphs.scales import check_scales
from tests.graphs import graph, node


@pytest.mark.parametrize("scale", [np.inf, np.nan, 0.0, -0.1, 1.3e36])
@pytest.mark.parametrize("kind", ["QDQ", "product", "lookup"])
def test_a_scale_that_cannot_be_right_is_named_with_its_node(scale: float, kind: str) -> None:
    nodes = {
        "QDQ": [
            node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            node("Relu", ["d"], ["y"], name="reader"),
        ],
        "product": [
            node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
            node("MatMulInteger", ["q", "w", "qz"], ["i"]),
            node("Cast", ["i"], ["f"], to=1),
            node("Mul", ["qs", "s"], ["both"], name="reader"),
            node("Mul", ["f", "both"], ["y"]),
        ],
        "lookup": [
            node("Gather", ["w", "x"], ["rows"]),
            node("Cast", ["rows"], ["f"], to=1),
            node("Mul", ["f", "s"], ["y"], name="reader"),
        ],
    }[kind]
    constants = {"s": np.float32(scale), "z": np.int8(0), "w": np.eye(4, dtype=np.int8), "weight": np.float32(0)}
    proto = graph(nodes, {"x": [4, 4]}, {"y": [4, 4]}, constants)
    with pytest.raises(StageError, match=r"the scale `s` of the node `reader` is .*expected a finite number above 0"):
        check_scales(proto.graph)
    good = graph(nodes, {"x": [4, 4]}, {"y": [4, 4]}, constants | {"s": np.float32([0.1, 2])})
    check_scales(good.graph)
