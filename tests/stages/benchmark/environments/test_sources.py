from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from pipeline.errors import StageError
from pipeline.model import OnnxModel
from stages.benchmark.environments.sources import Graphs, Programs, program_source
from tests import edge, graphs
from tests.aliases import Make


def test_a_quantized_file_is_refused_by_its_operators(context: Make, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["output"]),
    ]
    weights = {"s": np.float32(0.1), "z": np.uint8(128)}
    path = tmp_path / "int8.onnx"
    onnx.save(graphs.mapping(nodes, weights, ["n", 4]), path)
    with pytest.raises(StageError, match=r"DequantizeLinear, QuantizeLinear; expected an fp32 file"):
        Graphs().told(OnnxModel(path, {"input": torch.rand(2, 4)}), context(), tmp_path, 1)


def test_a_program_takes_one_number_of_examples_by_position(tmp_path: Path) -> None:
    model = edge.words()
    source = program_source(model, tmp_path, 3)
    assert (source["input_names"], source["output_names"]) == (["attention_mask", "input_ids"], ["output"])
    inputs = edge.repeated(model, 3)
    (answer,) = torch.export.load(source["source"]).module()(*inputs.values())
    assert torch.allclose(answer, model.predict(inputs)["output"], atol=1e-6)


def test_a_model_that_rounds_its_values_is_given_as_its_file(tiny: Make, context: Make, tmp_path: Path) -> None:
    model, ctx, programs = tiny(), context(), Programs()
    assert "shapes" not in programs.told(model, ctx, tmp_path, 3)
    model.module.rounded_otherwise = nullcontext
    told = programs.told(model, ctx, tmp_path, 3)
    assert (Path(told["source"]).suffix, told["shapes"]) == (".onnx", {"input": [3, 1, 8, 8]})
    assert next(programs.batches(model, ctx, edge.repeated(model, 3)))["input"].shape == (3, 1, 8, 8)
