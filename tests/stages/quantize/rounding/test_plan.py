from typing import Any

import onnx
import pytest

from pipeline.errors import StageError
from stages.quantize.graphs.names import Names, distinct_names
from stages.quantize.rounding.plan import schemes
from tests.graphs import graph, node
from tests.quantizing import draw

EIGHT, FOUR, THREE = {"bits": 8}, {"bits": 4}, {"bits": 3}


def network() -> tuple[onnx.GraphProto, Names]:
    """Five products: the second and the fourth share a weight, the third has its bias in an Add."""
    nodes = [
        node("MatMul", ["x", "stem.weight"], ["a"], "n_stem"),
        node("MatMul", ["a", "body.0.fc.weight"], ["b"], "n_one"),
        node("MatMul", ["b", "val_3"], ["c"], "n_two"),
        node("Add", ["c", "body.1.fc.bias"], ["d"], "n_add"),
        node("MatMul", ["d", "body.0.fc.weight"], ["e"], "n_three"),
        node("Gemm", ["e", "head.weight"], ["y"], "n_head"),
        node("Relu", ["y"], ["z"], "n_relu"),
    ]
    weights = {name: draw(4, 4) for name in ("stem.weight", "body.0.fc.weight", "val_3", "head.weight")}
    proto = graph(nodes, {"x": [2, 4]}, {"z": [2, 4]}, weights | {"body.1.fc.bias": draw(4)})
    return proto.graph, distinct_names(proto.graph)


def planned(default: Any = FOUR, ends: Any = EIGHT, exclude: tuple[str, ...] = (), **layers: Any) -> dict[str, Any]:
    """The scheme of each node by the user's name; `__` stands for a dot."""
    proto, names = network()
    asked = [name for name, old in names.nodes.items() if old not in exclude]
    by_name = {key.replace("__", "."): scheme for key, scheme in layers.items()}
    chosen, _ = schemes(proto, names, asked, default, ends, by_name)
    return {names.nodes[name]: scheme for name, scheme in chosen.items()}


def test_the_first_and_the_last_keep_8_bits() -> None:
    assert planned() == {"n_stem": EIGHT, "n_one": FOUR, "n_two": FOUR, "n_three": FOUR, "n_head": EIGHT}
    assert planned(ends=THREE)["n_head"] == THREE
    assert planned(exclude=("n_stem",))["n_one"] == FOUR


@pytest.mark.parametrize(("name", "meant"), [
    ("n_two", {"n_two"}), ("body__1__fc", {"n_two"}), ("body__1", {"n_two"}), ("val_3", {"n_two"}),
    ("head", {"n_head"}), ("body__0__fc__weight", {"n_one", "n_three"}), ("body", {"n_one", "n_two", "n_three"}),
    ("n_one", {"n_one", "n_three"}),
])  # fmt: skip
def test_layers_are_named_by_node_by_weight_by_bias_and_by_what_they_are_in(name: str, meant: set[str]) -> None:
    assert {node for node, scheme in planned(**{name: THREE}).items() if scheme == THREE} == meant


def test_the_longer_name_counts() -> None:
    chosen = planned(body__1={"codebook": 16}, body=THREE)
    assert (chosen["n_one"], chosen["n_two"]) == (THREE, {"codebook": 16})


@pytest.mark.parametrize(("arguments", "message"), [
    ({"heat": FOUR}, "`layers` has `heat`, .*did you mean `head`"),
    ({"n_relu": FOUR}, "`layers` has `n_relu`, and no node with a weight or layer"),
    ({"head": FOUR, "exclude": ("n_head",)}, "the weight of the node `n_head`, a Gemm, is not rounded here"),
    ({"n_one": FOUR, "n_three": THREE}, "different bits for `n_one` and `n_three`, which share a weight"),
    ({"default": {"codebook": 17}}, "a codebook of 17 values is larger than the 16 weights of `n_one`"),
    ({"exclude": ("n_one", "n_two", "n_three")}, "all weights stay at 8 bits: .*Name them in `layers`"),
])  # fmt: skip
def test_what_cannot_be_is_one_error(arguments: Any, message: str) -> None:
    with pytest.raises(StageError, match=message):
        planned(**arguments)
