"""Which layers are at fault, and what each changes alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto

from pipeline.measure.isa.emulate import emulate
from pipeline.measure.isa.layers import EXAMPLES, examples_of, saturating
from pipeline.model import OnnxModel
from pipeline.task import Split, Task, classification
from tests import graphs
from tests.integers import saturated

WIDTH = 32


def model(folder: Path) -> OnnxModel:
    """Two products: the first one's sums saturate much, the second one's hardly."""
    generator = np.random.default_rng(0)
    first = np.repeat(generator.random((WIDTH // 2, 8)) < 0.8, 2, axis=0) * np.array([127] * 4 + [64] * 4)
    second = np.zeros((8, 4))
    second[:2, 0], second[2:4, 1], second[4:6, 2], second[6:, 3] = (66, 64), 64, 127, 127
    nodes = [
        graphs.node("MatMulInteger", ["input", "a"], ["h"], name="first"),
        graphs.node("Cast", ["h"], ["f"], to=TensorProto.FLOAT),
        graphs.node("QuantizeLinear", ["f", "s", "z"], ["q"]),
        graphs.node("MatMulInteger", ["q", "b"], ["i"], name="second"),
        graphs.node("Cast", ["i"], ["output"], to=TensorProto.FLOAT),
    ]
    weights = {
        "a": first.astype(np.int8),
        "b": second.astype(np.int8),
        "s": np.array(2500, np.float32),
        "z": np.array(0, np.uint8),
    }
    proto = graphs.graph(nodes, {"input": (TensorProto.UINT8, ["n", WIDTH])}, {"output": ["n", 4]}, weights)
    onnx.save(proto, folder / "net.onnx")
    return OnnxModel(folder / "net.onnx", {})


def task_of(net: OnnxModel, count: int) -> Task:
    """Images whose labels are what the network answers where its sums are exact."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, WIDTH), generator=generator, dtype=torch.uint8)
    labels = net.predict({"input": images})["output"].argmax(1).tolist()
    split = Split([({"input": image}, label) for image, label in zip(images, labels, strict=True)])  # type: ignore[arg-type]
    return classification(split, split, split)


def test_layers_are_told_by_what_saturates_in_them(tmp_path: Path) -> None:
    net = model(tmp_path)
    exact: Any = emulate(net, "vnni", tmp_path / "exact").model
    task, steps = task_of(exact, 40), list[int]()
    layers = saturating(net, "avx2", task, 16, tmp_path / "to", steps.append)
    assert layers[0].node == "first"
    assert sum(steps) == 3 * (1 + len(layers))
    x = torch.stack([task.validation[i][0]["input"] for i in range(40)]).numpy()
    weight = onnx.numpy_helper.to_array(onnx.load(net.path).graph.initializer[0])
    there, here = saturated(x, weight), x.astype(np.int64) @ weight
    assert layers[0].error == np.sqrt(((there - here) ** 2).sum() / (here**2).sum())
    sums = x[:, ::2, None].astype(int) * weight[None, ::2] + x[:, 1::2, None].astype(int) * weight[None, 1::2]
    assert layers[0].saturated == (abs(sums) > 32767).mean()
    assert layers[0].shape == [WIDTH, 8]
    assert layers[0].changed
    assert layers[0].gain
    # With the first layer exact only the second one differs from the labels, which are those of exact sums.
    rest: Any = emulate(net, "avx2", tmp_path / "rest", exact=["first"]).model
    there_all: Any = emulate(net, "avx2", tmp_path / "all").model
    inputs = {"input": torch.from_numpy(x)}
    some, every = (one.predict(inputs)["output"].argmax(1) for one in (rest, there_all))
    assert layers[0].changed == float((some != every).double().mean())


def test_at_most_so_many_examples_are_looked_at(tmp_path: Path) -> None:
    task = task_of(model(tmp_path), EXAMPLES + 7)
    assert len(examples_of(task)) == EXAMPLES
