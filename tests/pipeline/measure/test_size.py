"""Bytes by layer and type: their sum is the payload, whatever the initializers are called."""

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper

from pipeline.deploy import deploy
from pipeline.measure.size import LayerBytes, layers, payload_bytes
from pipeline.model import OnnxModel
from pipeline.task import Task
from stages.export.onnx import OnnxExport
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.static import StaticQuantization
from tests.aliases import Make
from tests.graphs import graph, node


def by_name(found: list[LayerBytes]) -> dict[str, dict[str, int]]:
    named: dict[str, dict[str, int]] = {}
    for layer in found:
        assert layer.dtype not in named.setdefault(layer.name, {})
        named[layer.name][layer.dtype] = layer.bytes
    return named


def whole(path: Path) -> int:
    return payload_bytes(OnnxModel(path, {}))


def test_the_layers_of_an_export_are_its_modules_in_order(tiny: Make, tmp_path: Path) -> None:
    path = deploy(tiny(8), tmp_path / "model.onnx").path
    found = layers(path)
    assert sum(layer.bytes for layer in found) == whole(path)
    named = by_name(found)
    assert [name for name in named if " " not in name] == ["conv1", "conv2", "head"]
    assert named["conv1"] == {"float32": 4 * (8 * 9 + 8)}
    assert named["conv2"] == {"float32": 4 * (8 * 8 * 9 + 8)}
    assert named["head"] == {"float32": 4 * (4 * 32 + 4)}


def test_scales_and_zero_points_are_with_their_layer(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "blocks.0.conv1.weight_quantized": torch.zeros(4, 3, dtype=torch.int8),
        "blocks.0.conv1.weight_scale": torch.ones(4),
        "blocks.0.conv1.weight_zero_point": torch.zeros(4, dtype=torch.int8),
        "blocks.0.conv1.bias": torch.zeros(4),
    }
    saved(tmp_path / "model.onnx", values, [])
    assert layers(tmp_path / "model.onnx") == [
        LayerBytes("blocks.0.conv1", "int8", 16),
        LayerBytes("blocks.0.conv1", "float32", 32),
    ]


def saved(path: Path, values: dict[str, torch.Tensor], nodes: list[onnx.NodeProto]) -> None:
    onnx.save(graph(nodes, {"input": ["batch", 4]}, {"output": ["batch", 4]}, values), path)


def test_an_input_that_is_left_out_is_no_layer(tmp_path: Path) -> None:
    saved(tmp_path / "model.onnx", {"most": torch.ones(())}, [node("Clip", ["input", "", "most"], ["output"])])
    assert by_name(layers(tmp_path / "model.onnx")) == {"Clip 1": {"float32": 4}}


def test_a_name_that_tells_no_module_counts_to_the_operator_that_reads_it(tmp_path: Path) -> None:
    nodes = [
        node("DequantizeLinear", ["a", "b"], ["wide"]),
        node("Transpose", ["wide"], ["turned"]),
        node("MatMul", ["input", "turned"], ["x"]),
        node("MatMul", ["x", "c"], ["y"]),
        node("QuantizeLinear", ["y", "b2"], ["z"]),
        node("DequantizeLinear", ["z", "b2"], ["output"]),
    ]
    values = {"a": torch.zeros(4, 4, dtype=torch.int8), "b": torch.ones(()), "c": torch.ones(4, 4)}
    values |= {"b2": torch.ones(()), "none": torch.ones(2)}
    saved(tmp_path / "model.onnx", values, nodes)
    assert by_name(layers(tmp_path / "model.onnx")) == {
        "MatMul 1": {"int8": 16, "float32": 4},
        "MatMul 2": {"float32": 64},
        "output": {"float32": 4},
        "none": {"float32": 8},
    }


def test_what_a_graph_inside_a_node_reads_counts_to_that_node(tmp_path: Path) -> None:
    branch = graph([node("Add", ["input", "deep"], ["inner"])], {}, {"inner": None}).graph
    both = node("If", ["yes"], ["output"], then_branch=branch, else_branch=branch)
    saved(tmp_path / "model.onnx", {"yes": torch.tensor(True), "deep": torch.ones(4)}, [both])
    assert by_name(layers(tmp_path / "model.onnx")) == {"If 1": {"bool": 1, "float32": 16}}


def test_four_bits_are_half_a_byte(tmp_path: Path) -> None:
    tensor = helper.make_tensor("a.weight", TensorProto.INT4, [3], [1, 2, 3])
    onnx.save(graph([], {}, {"a.weight": (TensorProto.INT4, [3])}, [tensor]), tmp_path / "model.onnx")
    assert layers(tmp_path / "model.onnx") == [LayerBytes("a", "int4", 2)]


def test_our_quantized_files_add_up_too(task: Task, tiny: Make, context: Make) -> None:
    exported = OnnxExport().run(tiny(8), context())
    for stage in (StaticQuantization(), DynamicQuantization(operators=("Gemm",))):
        path = stage.run(exported, context()).path
        found = layers(path)
        assert sum(layer.bytes for layer in found) == whole(path)
        assert sum(layer.bytes for layer in found if layer.dtype in ("int8", "uint8")) >= 4 * 32
    assert by_name(layers(StaticQuantization().run(exported, context()).path))["Conv 2"]["int8"] >= 8 * 8 * 9
