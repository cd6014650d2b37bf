"""How a file is called, read from its ports and from what the pipeline file says of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from pipeline.build.build import build
from pipeline.build.config import OnnxFile
from pipeline.build.onnx_calls import calls_of, remedies
from pipeline.build.source import load_config
from pipeline.errors import ConfigError
from pipeline.forms.sandbox.calls import Calls, State, Value
from pipeline.forms.sandbox.check import FilePort, Graph
from pipeline.model import OnnxModel
from pipeline.records.record import Record
from pipeline.runner import run
from tests.graphs import node, tensors
from tests.pipeline.forms.sandbox.foreign_files import simple
from tests.users import chain_of

EXAMPLE = {"input": torch.zeros(2, 16)}
X, OUT = FilePort("x", "float32", ("n", 16)), FilePort("out", "float32", ("n", 8))
H, HN = FilePort("h", "float32", (1, "n", 8)), FilePort("hn", "float32", (1, "n", 8))
RATE = FilePort("rate", "int64", ())
GRAPH = Graph((X, H, RATE), (OUT, HN), 1)
STATE = State("hn", Value("float32", (1, 0, 8)))


def said(**how: Any) -> OnnxFile:
    return OnnxFile(file=Path("net.onnx"), **how)


def test_what_no_example_has_is_asked_for_by_name() -> None:
    with pytest.raises(ConfigError, match=r"takes `rate` int64 \(\), which has no axis .* constants: \{rate: NUMBER\}"):
        calls_of(GRAPH, said(), EXAMPLE)
    assert "state: {h: hn}, constants: {rate: NUMBER}" in remedies(GRAPH, EXAMPLE)
    assert not remedies(Graph((X,), (OUT,), 1), {"x": EXAMPLE["input"]})


@pytest.mark.parametrize(("example", "steps"), [(EXAMPLE, ()), ({"input": torch.zeros(2, 5, 16)}, ("x",))])
def test_the_batch_of_a_state_is_known_by_its_name(example: dict[str, torch.Tensor], steps: tuple[str, ...]) -> None:
    calls, seen = calls_of(GRAPH, said(state={"h": "hn"}, constants={"rate": 16000}), example)
    assert calls == Calls(None, {"h": 1, "hn": 1}, {"rate": Value("int64", (), 16000)}, {"h": STATE}, steps)
    assert ([port.name for port in seen.inputs], [port.name for port in seen.outputs]) == (["x"], ["out"])
    assert seen.inputs[0].shape == ("batch", *(["steps"] if steps else []), 16)


def fixed(port: FilePort, **rest: Any) -> FilePort:
    return port._replace(shape=tuple(size if isinstance(size, int) else 1 for size in port.shape or ()), **rest)


def test_a_file_of_one_example_needs_no_axis() -> None:
    calls, _ = calls_of(Graph((fixed(X), fixed(H)), (fixed(OUT), fixed(HN)), 1), said(state={"h": "hn"}), EXAMPLE)
    assert calls == Calls(1, states={"h": State("hn", Value("float32", (1, 1, 8)))})


@pytest.mark.parametrize(
    ("ports", "how", "message"),
    [
        ((X, fixed(H)), {}, r"the batch of its input `h` float32 \(1, 1, 8\) is fixed to 1; expected the same of `x`"),
        ((X, fixed(H)), {"state": {"h": "hn"}}, r"its state is `h` .*; expected .* one axis for the batch"),
        ((X, H), {"state": {"g": "hn"}}, "`state` names an input `g`; expected one of x, h"),
        ((X, H), {"state": {"h": "x"}}, "`state` names an output `x`; expected one of out, hn"),
        ((X, H), {"batch_axis": {"h": 3}}, r"`batch_axis` says axis 3 of `h`"),
        ((X, RATE), {"constants": {"rate": 0.5}}, r"`constants` gives 0\.5 to `rate` int64 \(\); expected .* int64"),
        ((X, H), {"constants": {"h": 1}}, r"`constants` names `h` float32 \(1, n, 8\), whose sizes are free"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_file_is_refused(ports: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        calls_of(Graph(ports, (OUT, HN), 1), said(**how), EXAMPLE)


def single(path: Path) -> Path:
    """The mean of each quadrant of one image (1, 1, 8, 8), behind a convolution."""
    kernel = np.full((1, 1, 4, 4), 1 / 16)
    nodes = [node("Conv", ["x", "w"], ["c"], strides=[4, 4]), node("Reshape", ["c", "shape"], ["logits"])]
    return simple(path, nodes, {"x": [1, 1, 8, 8]}, {"logits": [1, 4]}, tensors(w=kernel, shape=np.array([1, 4])))


def test_a_file_for_one_example_is_measured_calibrated_and_timed(folder: Callable[..., Path]) -> None:
    timed = "benchmark.latency, rounds: 1, iterations: 2, warmup: 0"
    path = folder(chain_of("quantize.static", timed, model="onnx: net.onnx"), make=single)
    record: Record = run(path, track=False)
    session = onnxruntime.InferenceSession(path.parent / "net.onnx")
    built = build(*load_config(path))
    (batch,) = built.task.test.loader(len(built.task.test))
    logits = np.concatenate([session.run(None, {"x": image[None].numpy()})[0] for image in batch.inputs["input"]])
    assert record.baseline.score == (logits.argmax(1) == batch.targets.numpy()).mean()
    assert (record.baseline.macs, record.baseline.batch) == (4 * 16, 1)
    assert any("it takes 1 example at a time" in note for note in record.notes)
    assert record.stages[0].retention.value > 0.95
    assert record.stages[1].latency[0]["samples"] == 2
    assert isinstance(built.model, OnnxModel)
    torch.testing.assert_close(built.model.predict(batch.inputs)["output"], torch.from_numpy(logits))


def test_more_at_a_time_than_the_file_takes_is_not_timed(folder: Callable[..., Path]) -> None:
    path = folder(chain_of("benchmark.latency, batch: [1, 8]", model="onnx: net.onnx"), make=single)
    with pytest.raises(ConfigError, match=r"`batch` is \[1, 8\], and the file takes 1 at a time; expected \[1\]"):
        build(*load_config(path))
