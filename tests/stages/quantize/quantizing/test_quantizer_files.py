"""Files as people have them, each in fp32 and quantized, by ONNX Runtime: the outputs stay near each other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from pipeline.errors import StageError
from pipeline.measure.cost import onnx_macs, onnx_params
from pipeline.stage import Stage
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.optimum import OptimumQuantization
from stages.quantize.static import StaticQuantization
from tests.aliases import Patch
from tests.graphs import node
from tests.quantizing import DYNAMIC, LOW, PER_TENSOR, STATIC, Ran, draw, images, old

OPTIMUM = pytest.param(OptimumQuantization(target="avx2"), marks=pytest.mark.optimum)


def convolution(opset: int = 17, ir: int = 8, inputs: tuple[str, ...] = ()) -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["y"]),
    ]
    weights = {"w": draw(8, 3, 3, 3), "b": draw(8)}
    ends: dict[str, Any] = {"x": ["n", 3, 8, 8]} | {name: [*weights[name].shape] for name in inputs}
    return old(nodes, ends, {"y": ["n", 8]}, weights=weights, opset=opset, ir=ir)


@pytest.mark.parametrize("stage", [STATIC, DynamicQuantization(operators=("Conv",), reduce_range=True)])
@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (9, 4), (11, 6), (12, 7)])
def test_below_opset_13_a_file_is_raised_first(
    stage: Stage, opset: int, ir: int, quantized: Callable[..., Ran]
) -> None:
    ran = quantized(stage, convolution(opset, ir, ("w", "b") if ir == 3 else ()), x=images(3, 8, 8))
    assert ran.report["quantized"]["Conv"] == 1
    assert ran.error < 0.03
    assert onnx.load(ran.model.path).opset_import[0].version == 13
    assert [value.name for value in ran.graph.input] == ["x"]


@pytest.mark.parametrize("stage", [STATIC, DynamicQuantization(operators=("Conv",), reduce_range=True)])
@pytest.mark.parametrize("opset", [9, 17])
def test_what_the_user_wrote_into_a_file_stays(stage: Stage, opset: int, quantized: Callable[..., Ran]) -> None:
    proto = convolution(opset)
    helper.set_model_props(proto, {"names": "cat, dog", "stride": "32"})
    ran = quantized(stage, proto, x=images(3, 8, 8))
    props = {entry.key: entry.value for entry in onnx.load(ran.model.path).metadata_props}
    assert props == {"names": "cat, dog", "stride": "32"}


def shared_bias(second: str) -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"], pads=[1] * 4),
        node("Conv", ["a", "v", "b"], [second], pads=[1] * 4),
        node("Add", ["a", second], ["s"]),
        node("ReduceMean", ["s"], ["y"], axes=[2, 3], keepdims=0),
    ]
    weights = {"w": draw(8, 3, 3, 3), "v": draw(8, 8, 3, 3) * 3, "b": draw(8)}
    return old(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 8]}, weights=weights)


@pytest.mark.parametrize("second", [
    "b0", "b1", "k", "a_quantized", "a_scale", "x_zero_point", "a_QuantizeLinear_Output", "a_DequantizeLinear_Output",
    "w_quantized", "w_scale", "v17x", "x_DequantizeLinear",
])  # fmt: skip
def test_no_name_in_the_file_meets_one_of_the_quantizer(second: str, quantized: Callable[..., Ran]) -> None:
    ran = quantized(STATIC, shared_bias(second), x=images(3, 8, 8))
    assert ran.error < 0.05
    assert onnx_params(ran.model) == onnx_params(ran.before) == 8 * 3 * 9 + 8 * 8 * 9 + 8
    assert onnx_macs(ran.model) == onnx_macs(ran.before)


@pytest.mark.parametrize("stage", [STATIC, DYNAMIC])
def test_ends_called_as_the_quantizer_calls_scales_stay(stage: Stage, quantized: Callable[..., Ran]) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Mul", ["m", "x_scale"], ["x_quantized"]),
        node("MatMul", ["x_quantized", "v"], ["y"]),
    ]
    proto = old(
        nodes, {"x": ["n", 16], "x_scale": ["n", 1]}, {"y": ["n", 4], "x_quantized": ["n", 8]},
        weights={"w": draw(16, 8), "v": draw(8, 4)},
    )  # fmt: skip
    ran = quantized(stage, proto, x=images(16), x_scale=images(1).abs())
    assert ran.error < 0.05
    assert [value.name for value in (*ran.graph.input, *ran.graph.output)] == ["x", "x_scale", "y", "x_quantized"]


BIASES = {"row": draw(1, 8), "flat": draw(8), "one": draw(1), "scalar": np.float32(0.3), "cell": draw(1, 1)}


@pytest.mark.parametrize("stage", [STATIC, PER_TENSOR, DYNAMIC])
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("kind", ["Gemm", "Gemm, transposed", "MatMul"])
def test_a_bias_of_any_shape(stage: Stage, bias: str, kind: str, quantized: Callable[..., Ran]) -> None:
    weight = draw(8, 32) if "transposed" in kind else draw(32, 8)
    if kind == "MatMul":
        nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["y"])]
    else:
        nodes = [node("Gemm", ["x", "w", "b"], ["y"], transB=int("transposed" in kind))]
    proto = old(nodes, {"x": ["n", 32]}, {"y": ["n", 8]}, weights={"w": weight, "b": BIASES[bias]})
    ran = quantized(stage, proto, x=images(32))
    assert ran.error < 0.03
    assert any(t.data_type == TensorProto.INT8 and len(t.dims) == 2 for t in ran.graph.initializer)


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(nodes[-1].output[0], 1, None)])


def branching(read: str) -> onnx.ModelProto:
    """A branch, whose bodies read a value of the graph around, between convolutions."""
    other = branch("else", node("Neg", [read], ["e0"]), node("Identity", ["e0"], ["e"]))
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v", "b"], ["d"], pads=[1] * 4),
        node("Sigmoid", ["d"], ["p"]),
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["is_bright"]),
        node(
            "If", ["is_bright"], ["q"], then_branch=branch("then", node("Mul", [read, "two"], ["t"])), else_branch=other
        ),
        node("Conv", ["q", "v", "b"], ["z"], pads=[1] * 4),
        node("GlobalAveragePool", ["z"], ["f"]),
        node("Flatten", ["f"], ["y"]),
    ]
    weights = {"w": draw(8, 3, 3, 3), "v": draw(8, 8, 3, 3), "b": draw(8), "two": np.float32(2), "zero": np.float32(0)}
    return old(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 8]}, weights=weights)


@pytest.mark.parametrize("read", ["p", "d", "r", "c"])
@pytest.mark.parametrize("stage", [
    StaticQuantization(reduce_range=True, batch_size=1), DynamicQuantization(operators=("Conv",), reduce_range=True),
])  # fmt: skip
def test_branches_read_outer_values(read: str, stage: Stage, quantized: Callable[..., Ran]) -> None:
    data = images(3, 8, 8)
    ran = quantized(stage, branching(read), x=data)
    assert ran.report["quantized"]["Conv"] == 3
    ones = [{"x": data[i : i + 1]} for i in range(16)]
    assert 0 < sum(float(one["x"].sum()) > 0 for one in ones) < 16  # each branch is taken
    a, b = (torch.cat([model.predict(one)["y"] for one in ones]) for model in (ran.before, ran.model))
    assert (a - b).abs().max() < 0.06 * (a.max() - a.min())


def scan() -> onnx.ModelProto:
    """A loop over steps whose body reads a computed value and a weight from outside."""
    steps = helper.make_tensor_value_info("s", 1, ["n", 8])
    states = [helper.make_tensor_value_info(name, 1, ["n", 8]) for name in ("h", "k", "o")]
    body = [node("Add", ["h", "s"], ["a"]), node("Mul", ["a", "gate"], ["k"]), node("Add", ["k", "v"], ["o"])]
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Transpose", ["m"], ["t"], perm=[1, 0, 2]),
        node("ReduceMean", ["m"], ["gate"], axes=[1], keepdims=0),
        node("Scan", ["gate", "t"], ["last", "every"], num_scan_inputs=1,
             body=helper.make_graph(body, "body", [states[0], steps], states[1:])),
        node("MatMul", ["last", "u"], ["y"]),
    ]  # fmt: skip
    return old(nodes, {"x": ["n", 5, 16]}, {"y": ["n", 4]}, weights={"w": draw(16, 8), "u": draw(8, 4), "v": draw(8)})


@pytest.mark.parametrize("stage", [STATIC, DYNAMIC])
def test_a_loop_reads_outer_values(stage: Stage, quantized: Callable[..., Ran]) -> None:
    ran = quantized(stage, scan(), x=images(5, 16))
    assert ran.report["quantized"]["MatMul"] == 2
    assert ran.error < 0.06


def products(*shape: int) -> onnx.ModelProto:
    """A product with a weight of several axes, whose input another product reads too."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("MatMul", ["h", "deep"], ["d"]),
        node("MatMul", ["h", "flat"], ["f"]),
        node("Add", ["d", "f"], ["y"]),
    ]
    weights = {"w": draw(16, 32), "deep": draw(*shape, 32, 8), "flat": draw(32, 8)}
    return old(nodes, {"x": ["n", *[1] * len(shape), 1, 16]}, {"y": None}, weights=weights)


@pytest.mark.parametrize("shape", [(4,), (2, 3)])
@pytest.mark.parametrize(
    "stage",
    [
        STATIC,
        PER_TENSOR,
        DYNAMIC,
        pytest.param(OptimumQuantization(target="avx2", operators=("MatMul",)), marks=pytest.mark.optimum),
    ],
)
def test_weights_of_more_than_two_axes(stage: Stage, shape: tuple[int, ...], quantized: Callable[..., Ran]) -> None:
    ran = quantized(stage, products(*shape), x=images(*[1] * len(shape), 1, 16))
    assert ran.error < 0.06
    assert onnx_macs(ran.model) == onnx_macs(ran.before)
    assert onnx_params(ran.model) == onnx_params(ran.before)
    reasons = {"axes", "whole"} & set(ran.report)
    assert reasons == (
        {"axes"} if isinstance(stage, OptimumQuantization) else {"whole"} if stage != PER_TENSOR else set()
    )  # type: ignore[comparison-overlap]


SHARED: dict[str, list[onnx.NodeProto]] = {
    "transposed and not": [
        node("Gemm", ["x", "w", "b"], ["h"], transB=1),
        node("MatMul", ["h", "w"], ["k"]),
        node("Gemm", ["k", "w", "b"], ["y"]),
    ],
    "looked up and multiplied": [
        node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
        node("Gather", ["w", "i"], ["e"]),
        node("MatMul", ["e", "w"], ["y"]),
    ],
    "a bias and a term": [
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "b"], ["k"]),
        node("MatMul", ["k", "w"], ["l"]),
        node("Add", ["l", "b"], ["m"]),
        node("Mul", ["m", "b"], ["y"]),
    ],
    "with factors": [node("Gemm", ["x", "w", "b"], ["h"], alpha=0.5, beta=3.0), node("Gemm", ["h", "w", "b"], ["y"])],
}


@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize("stage", [STATIC, PER_TENSOR, DYNAMIC, OPTIMUM])
def test_constants_that_several_nodes_read_in_their_own_way(
    stage: Stage, kind: str, quantized: Callable[..., Ran]
) -> None:
    channels = 1.5 ** np.arange(16, dtype=np.float32)[:, None]  # of other sizes along one axis than along the other
    weights = {"w": draw(16, 16) * channels / 30, "b": draw(16)}
    read = {name for one in SHARED[kind] for name in one.input}
    proto = old(SHARED[kind], {"x": ["n", 16]}, {"y": ["n", 16]}, weights={n: weights[n] for n in weights if n in read})
    assert quantized(stage, proto, x=images(16)).error < 0.06


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", ["dynamic", pytest.param("optimum", marks=pytest.mark.optimum)])
def test_two_lstms_with_the_same_weights(kind: str, per_channel: bool, quantized: Callable[..., Ran]) -> None:
    settings: dict[str, Any] = {"operators": ("LSTM", "MatMul"), "per_channel": per_channel}
    stage = DynamicQuantization(**settings) if kind == "dynamic" else OptimumQuantization(target="avx2", **settings)
    nodes = [
        node("LSTM", ["x", "w", "r", "b"], ["h"], hidden_size=8),
        node("Squeeze", ["h", "one"], ["s"]),
        node("LSTM", ["s", "w", "r", "b"], ["g"], hidden_size=8),
        node("Squeeze", ["g", "one"], ["t"]),
        node("MatMul", ["t", "v"], ["y"]),
    ]
    weights = {"w": draw(1, 32, 8), "r": draw(1, 32, 8), "b": draw(1, 64), "v": draw(8, 4), "one": np.array([1])}
    ran = quantized(
        stage,
        old(nodes, {"x": [5, "n", 8]}, {"y": [5, "n", 4]}, weights=weights),
        x=images(8)[:5, None].expand(5, 5, 8),
    )
    assert ran.report["quantized"]["LSTM"] == 2
    assert ran.error < 0.05
    assert onnx_params(ran.model) == onnx_params(ran.before) == 2 * 32 * 8 + 64 + 8 * 4


def lookup(table: Any) -> onnx.ModelProto:
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        node("MatMul", ["m", "head"], ["y"]),
    ]
    return old(
        nodes, {"ids": (TensorProto.INT64, ["n", 6])}, {"y": ["n", 50]}, weights={"table": table, "head": draw(16, 50)}
    )


def test_tables_are_quantized_by_default_and_what_stays_is_told(quantized: Callable[..., Ran]) -> None:
    ids = torch.randint(0, 40, (64, 6))
    ran = quantized(DYNAMIC, lookup(draw(500, 16)), ids=ids)
    assert ran.report["quantized"] == {"Gather": 1, "MatMul": 1}
    assert ran.report["fp32_bytes"] == 0
    assert ran.error < 0.05
    assert ran.before.path.stat().st_size > 3 * ran.model.path.stat().st_size
    plain = quantized(DynamicQuantization(operators=("MatMul",)), lookup(draw(500, 16)), ids=ids)
    assert plain.report["fp32_bytes"] == 4 * 500 * 16


@pytest.mark.parametrize("low", [-np.inf, LOW, -1e9, -1e4])
@pytest.mark.parametrize("stage", [DYNAMIC, STATIC, OPTIMUM])
def test_a_table_with_a_row_that_hides_the_others_stays(
    stage: Stage, low: float, quantized: Callable[..., Ran]
) -> None:
    table = draw(40, 16)
    table[0] = low
    ran = quantized(stage, lookup(table), ids=torch.randint(1, 40, (64, 6)))
    assert ran.error < 0.05
    assert ran.report["fp32"]["Gather"] == 1
    assert "Gather_0" in ran.warnings[0]


def test_a_table_that_is_tied_to_an_output_layer_is_stored_once(quantized: Callable[..., Ran]) -> None:
    proto = lookup(table := draw(50, 16))
    (head,) = (t for t in proto.graph.initializer if t.name == "head")
    head.CopyFrom(onnx.numpy_helper.from_array(table.T.copy(), "head"))
    ran = quantized(DYNAMIC, proto, ids=torch.randint(0, 50, (64, 6)))
    assert ran.report["quantized"] == {"Gather": 1, "MatMul": 1}
    assert ran.error < 0.05
    assert onnx_params(ran.model) == onnx_params(ran.before)


@pytest.mark.parametrize("stage", [DYNAMIC, OPTIMUM])
def test_a_tied_table_may_be_read_by_a_product_at_once(stage: Stage, quantized: Callable[..., Ran]) -> None:
    table = draw(50, 16)
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("MatMul", ["e", "w"], ["h"]),
        node("MatMul", ["h", "head"], ["y"]),
    ]
    weights = {"table": table, "w": draw(16, 16), "head": table.T.copy()}
    proto = old(nodes, {"ids": (TensorProto.INT64, ["n", 6])}, {"y": ["n", 6, 50]}, weights=weights)
    ran = quantized(stage, proto, ids=torch.randint(0, 50, (64, 6)))
    assert ran.report["quantized"] == {"Gather": 1, "MatMul": 2}
    assert ran.error < 0.05
    assert onnx_params(ran.model) == onnx_params(ran.before)


@pytest.mark.optimum
@pytest.mark.parametrize("operator", ["Gather", "MatMul"])
def test_a_tied_table_and_its_product_may_be_left_one_without_the_other(
    operator: str, quantized: Callable[..., Ran]
) -> None:
    proto = lookup(table := draw(50, 16))
    (head,) = (t for t in proto.graph.initializer if t.name == "head")
    head.CopyFrom(onnx.numpy_helper.from_array(table.T.copy(), "head"))
    (name,) = (f"{n.op_type}_{i}" for i, n in enumerate(proto.graph.node) if n.op_type == operator)
    ran = quantized(OptimumQuantization(target="avx2", exclude=(name,)), proto, ids=torch.randint(0, 50, (64, 6)))
    assert ran.report["quantized"] == {n: 1 for n in ("Gather", "MatMul") if n != operator}
    assert ran.report["fp32"][operator] == 1
    assert [entry["node"].partition("_")[0] for entry in ran.report["layers"]] == [*ran.report["quantized"]]
    assert ran.error < 0.05


@pytest.mark.optimum
def test_a_gemm_whose_weight_8_bits_would_lose_stays(quantized: Callable[..., Ran]) -> None:
    weight = draw(16, 8)
    weight[:, 0] = -1e9
    nodes = [node("Gemm", ["x", "w"], ["h"], "odd"), node("Clip", ["h", "low"], ["c"]), node("Gemm", ["c", "v"], ["y"])]
    weights = {"w": weight, "v": draw(8, 4), "low": np.float32(-1)}
    proto = old(nodes, {"x": ["n", 16]}, {"y": ["n", 4]}, weights=weights)
    ran = quantized(OptimumQuantization(target="avx2"), proto, x=images(16).abs())
    assert ran.report["weight"] == ["odd"]
    assert (ran.report["quantized"]["Gemm"], ran.report["fp32"]["Gemm"]) == (1, 1)


@pytest.mark.parametrize("stage", [STATIC, DYNAMIC, OPTIMUM])
def test_weights_that_are_not_finite_stay_and_are_named(stage: Stage, quantized: Callable[..., Ran]) -> None:
    weight = draw(16, 8)
    weight[0, 0] = np.inf
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="odd"),
        node("Clip", ["h", "", "one"], ["c"]),
        node("MatMul", ["c", "v"], ["y"]),
    ]
    weights = {"w": weight, "v": draw(8, 4), "one": np.float32(1)}
    data = images(16)
    data[:, 0] = 1
    ran = quantized(stage, old(nodes, {"x": ["n", 16]}, {"y": ["n", 4]}, weights=weights), x=data)
    assert "odd" in ran.warnings[0]
    assert ran.report["fp32"]["MatMul"] == 1
    assert ran.error < 0.05


@pytest.mark.parametrize("reach", [255, 1e6])
def test_large_inputs_are_no_masks(reach: float, quantized: Callable[..., Ran]) -> None:
    proto = old(
        [node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 16]}, {"y": ["n", 8]}, weights={"w": draw(16, 8) / reach}
    )
    ran = quantized(STATIC, proto, x=images(16).abs() * reach)
    assert ran.error < 0.05
    assert not ran.warnings


def test_values_that_only_later_batches_show_are_named(quantized: Callable[..., Ran]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"], name="first"), node("MatMul", ["h", "v"], ["y"], name="last")]
    proto = old(nodes, {"x": ["n", 16]}, {"y": ["n", 4]}, weights={"w": draw(16, 8), "v": draw(8, 4)})
    data = images(16)
    data[-1, 0] = -1e5
    with pytest.raises(StageError, match="no node was quantized"):
        quantized(StaticQuantization(batch_size=8), proto, x=data)


@pytest.mark.parametrize("calibration", ["percentile", "entropy"])
def test_a_value_without_a_histogram_is_named_with_its_node(calibration: Any, quantized: Callable[..., Ran]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"], name="vanishing"), node("MatMul", ["h", "v"], ["y"], name="last")]
    proto = old(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, weights={"w": np.eye(4) * 1e-44, "v": draw(4, 4)})
    with pytest.raises(
        StageError, match=rf"no range by {calibration} of what the node `(vanishing|last)` gives: .*minmax"
    ):
        quantized(StaticQuantization(calibration=calibration), proto, x=images(4))


def resized(scales: Any) -> onnx.ModelProto:
    nodes = [node("Resize", ["x", "s"], ["r"], mode="linear"), node("Conv", ["r", "w"], ["y"])]
    weights = {"w": draw(8, 3, 3, 3), "s": np.float32(scales)}
    return old(nodes, {"x": ["n", 3, 8, 8]}, {"y": None}, weights=weights, opset=10, ir=5)


def test_a_resize_of_opset_10_is_quantized_as_it_was(quantized: Callable[..., Ran]) -> None:
    assert quantized(STATIC, resized([1, 1, 2, 2]), x=images(3, 8, 8)).error < 0.05


def test_a_file_that_a_newer_opset_changes_is_refused(quantized: Callable[..., Ran], monkeypatch: Patch) -> None:
    monkeypatch.setattr("stages.quantize.graphs.versions._keep_positions", lambda graph: None)
    with pytest.raises(StageError, match=r"its output `y` is another one in a newer opset.*Export the model again"):
        quantized(STATIC, resized([1, 1, 2, 2]), x=images(3, 8, 8))


def test_errors_say_the_names_of_the_file_and_no_folder_of_ours(quantized: Callable[..., Ran]) -> None:
    proto = old([node("Gemm", ["x", "nowhere"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 4]})
    with pytest.raises(StageError, match=r"net\.onnx .*nowhere") as caught:
        quantized(DYNAMIC, proto, x=images(4))
    assert "named.onnx" not in str(caught.value)
    assert "/quantize-" not in str(caught.value)


@pytest.mark.parametrize("stage", [STATIC, DYNAMIC])
def test_weights_of_half_precision_which_would_stay_are_refused(stage: Stage, quantized: Callable[..., Ran]) -> None:
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        node("MatMul", ["h", "w"], ["p"]),
        node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    proto = old(nodes, {"x": ["n", 8]}, {"y": ["n", 4]}, weights={"w": draw(8, 4).astype(np.float16)})
    with pytest.raises(StageError, match="its weights are of half precision, which would stay"):
        quantized(stage, proto, x=draw(64, 8))
