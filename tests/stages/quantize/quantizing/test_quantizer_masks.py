"""Masks and what is compared, quantized: the outputs stay near those in fp32."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from stages.quantize.static import StaticQuantization
from tests.graphs import node
from tests.quantizing import LOW, STATIC, Ran, draw, images, old


def attention(mask: list[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    """Attention whose scores `s` are masked to `a` where the tokens are 0; the padding is a third of them."""
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("MatMul", ["e", "query"], ["q"]),
        node("Transpose", ["e"], ["k"], perm=[0, 2, 1]),
        node("MatMul", ["q", "k"], ["s"]),
        node("Equal", ["ids", "nil"], ["is_pad2"]),
        node("Unsqueeze", ["is_pad2", "one"], ["is_pad"]),
        *mask,
        node("MatMul", ["p", "e"], ["o"]),
        node("ReduceMean", ["o"], ["mean"], axes=[1], keepdims=0),
        node("MatMul", ["mean", "head"], ["y"]),
    ]
    common = {
        "table": draw(20, 16) * 5,
        "query": draw(16, 16),
        "head": draw(16, 4),
        "nil": np.array(0),
        "one": np.array([1]),
    }
    return old(nodes, {"ids": (TensorProto.INT64, ["n", 6])}, {"y": ["n", 4]}, weights=common | weights)


SOFTMAX = node("Softmax", ["a"], ["p"], axis=-1)
AS_FLOAT = node("Cast", ["is_pad"], ["pad"], to=TensorProto.FLOAT)
MASKS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    **{
        f"where {low}": ([node("Where", ["is_pad", "low", "s"], ["a"]), SOFTMAX], {"low": np.float32(low)})
        for low in (-np.inf, LOW, -1e9, -1e4, -1e3)
    },
    "times and plus": (
        [AS_FLOAT, node("Mul", ["pad", "low"], ["bias"]), node("Add", ["s", "bias"], ["a"]), SOFTMAX],
        {"low": np.float32(-1e4)},
    ),
    "minus": (
        [AS_FLOAT, node("Mul", ["pad", "high"], ["bias"]), node("Sub", ["s", "bias"], ["a"]), SOFTMAX],
        {"high": np.float32(1e9)},
    ),
    "where, then plus and scale": (
        [
            node("Where", ["is_pad", "low", "zero"], ["bias"]),
            node("Add", ["s", "bias"], ["b"]),
            node("Div", ["b", "four"], ["a"]),
            SOFTMAX,
        ],
        {"low": np.float32(LOW), "zero": np.float32(0), "four": np.float32(4)},
    ),
    "logarithm, which no constant tells": (
        [
            node("Not", ["is_pad"], ["is_token"]),
            node("Cast", ["is_token"], ["token"], to=TensorProto.FLOAT),
            node("Log", ["token"], ["bias"]),
            node("Add", ["s", "bias"], ["a"]),
            SOFTMAX,
        ],
        {},
    ),
    "a power, which no constant tells": (
        [
            AS_FLOAT,
            node("Mul", ["pad", "ninety"], ["n"]),
            node("Mul", ["n", "n"], ["bias"]),
            node("Sub", ["s", "bias"], ["a"]),
            SOFTMAX,
        ],
        {"ninety": np.float32(90)},
    ),
    "by hand": (
        [
            node("Where", ["is_pad", "low", "s"], ["a"]),
            node("Exp", ["a"], ["x"]),
            node("ReduceSum", ["x", "last"], ["sum"]),
            node("Div", ["x", "sum"], ["p"]),
        ],
        {"low": np.float32(-np.inf), "last": np.array([-1])},
    ),
}


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
@pytest.mark.parametrize("mask", MASKS)
def test_masks_and_their_softmax_stay_in_fp32(mask: str, calibration: Any, quantized: Callable[..., Ran]) -> None:
    stage = StaticQuantization(reduce_range=True, calibration=calibration)
    ids = torch.randint(1, 20, (64, 6)) * (torch.rand(64, 6) < 0.7)
    ids[:, 0] = 1
    ran = quantized(stage, attention(*MASKS[mask]), ids=ids)
    assert ran.error < (0.3 if calibration == "entropy" else 0.06)
    assert ran.report["quantized"]["MatMul"] >= 3
    assert ran.report["mask" if "no constant" not in mask else "range"]
    assert bool(ran.warnings) == ("no constant" in mask)
    kinds = {one.op_type for one in MASKS[mask][0]} & {"Where", "Softmax", "Sub"}
    assert kinds & {*ran.report["fp32"]} == kinds


POOLS = {
    "maximum": [node("Where", ["is_pad", "low", "h"], ["m"]), node("ReduceMax", ["m", "one"], ["y"], keepdims=0)],
    "maximum, then weights": [
        node("Where", ["is_pad", "low", "h"], ["m"]),
        node("ReduceMax", ["m", "one"], ["k"], keepdims=0),
        node("MatMul", ["k", "v"], ["y"]),
    ],
}


@pytest.mark.parametrize("pool", POOLS)
def test_masked_maxima_stay_in_fp32(pool: str, quantized: Callable[..., Ran]) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h0"]),
        node("Relu", ["h0"], ["h"]),
        node("ReduceSum", ["x", "two"], ["sum"], keepdims=1),
        node("Less", ["sum", "zero"], ["is_pad"]),
        *POOLS[pool],
    ]
    constants = {"one": np.array([1]), "two": np.array([2]), "zero": np.float32(0), "low": np.float32(-np.inf)}
    weights = {"w": draw(16, 8), "v": draw(8, 8)} | constants
    proto = old(nodes, {"x": ["n", 5, 16]}, {"y": ["n", 8]}, weights=weights, opset=18)
    data = images(5, 16)
    data[:, 0] = data[:, 0].abs()  # a row that is not masked
    ran = quantized(STATIC, proto, x=data)
    assert ran.error < 0.06
    assert ran.report["mask"]


def test_a_comparison_reads_what_the_data_say(quantized: Callable[..., Ran]) -> None:
    """Rows of -50 are padding; in 8 bits no value would be -50."""
    nodes = [
        node("Equal", ["x", "low"], ["is_low"]),
        node("Where", ["is_low", "zero", "x"], ["clean"]),
        node("MatMul", ["clean", "w"], ["a"]),
        node("MatMul", ["x", "w"], ["b"]),
        node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    weights = {"w": draw(16, 8), "low": np.float32(-50), "zero": np.float32(0)}
    data = images(16)
    data[::2, :8] = -50
    data[1::2, 0] = 13  # so that -50 lies between two steps
    ran = quantized(STATIC, old(nodes, {"x": ["n", 16]}, {"y": ["n", 16]}, weights=weights), x=data)
    a, b = (model.predict({"x": data})["y"][:, :8] for model in (ran.before, ran.model))
    assert (a - b).abs().max() < 0.5  # with the padding it would be 50 * sum of weights
