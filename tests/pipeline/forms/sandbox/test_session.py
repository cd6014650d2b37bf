"""A file from outside lives in a process of its own: the same outputs, and what kills that process kills no other."""

import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from pipeline.errors import ConfigError, ForeignError, ShrinkError
from pipeline.forms.sandbox.frames import LENGTH, FrameError, pack, unpack
from pipeline.forms.sandbox.process import GIB, Limits
from pipeline.forms.sandbox.session import Child, Outside
from pipeline.model import OnnxModel
from tests.graphs import graph, node, tensors
from tests.pipeline.forms.sandbox.foreign_files import simple, with_data

FLOAT = TensorProto.FLOAT
ROWS = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def identity(path: Path, kind: int) -> Path:
    return simple(path, [node("Identity", ["x"], ["y"])], {"x": (kind, None)}, {"y": (kind, None)})


def test_it_gives_what_a_session_here_gives_to_the_bit(good: Path) -> None:
    outside, here = OnnxModel(good, {}, outside=Outside()), OnnxModel(good, {})
    assert torch.equal(outside.predict({"input": ROWS})["output"], here.predict({"input": ROWS})["output"])
    assert torch.equal(outside.predict({"input": ROWS[:0]})["output"], torch.zeros(0, 4))


def test_external_data_are_found_by_the_child(tmp_path: Path) -> None:
    path = with_data(tmp_path / "net.onnx")
    outside, here = OnnxModel(path, {}, outside=Outside()), OnnxModel(path, {})
    assert torch.equal(outside.predict({"input": ROWS})["output"], here.predict({"input": ROWS})["output"])


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Any]:
    """echo(array): through a child and back."""
    folder = tmp_path_factory.mktemp("echo")

    def through(array: Any) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        return Child(identity(folder / f"{array.dtype}.onnx", kind)).run({"x": array})["y"]

    return through


@pytest.mark.parametrize("dtype", ["float16", "int64", "bool"])
def test_numbers_of_all_kinds_go_there_and_back(echo: Callable[[Any], Any], dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).T.astype(dtype)  # not contiguous
    found = echo(array)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert (found == array).all()


def test_a_scalar_stays_one(echo: Callable[[Any], Any]) -> None:
    assert echo(np.array(3, np.int32)).shape == ()


def test_the_session_is_not_opened_here(good: Path) -> None:
    with pytest.raises(ShrinkError, match="a file from outside is not opened in this process"):
        _ = OnnxModel(good, {}, outside=Outside()).session


def test_a_file_that_does_not_pass_is_opened_by_nobody(good: Path) -> None:
    good.write_bytes(good.read_bytes()[:200])
    with pytest.raises(ConfigError, match="it is damaged or no ONNX file"):
        Child(good)


def test_a_killed_child_is_one_error_and_the_next_prediction_begins_anew(good: Path) -> None:
    model = OnnxModel(good, {}, outside=Outside())
    before = model.predict({"input": ROWS})["output"]
    os.kill(model.child.process.pid, signal.SIGKILL)
    with pytest.raises(ForeignError, match=r"net\.onnx: the process that runs it was killed by SIGKILL") as caught:
        model.predict({"input": ROWS})
    assert caught.value.exit_code == 6
    assert torch.equal(model.predict({"input": ROWS})["output"], before)


def test_a_crash_while_it_computes_is_told(good: Path) -> None:
    child = Child(good)
    os.kill(child.process.pid, signal.SIGSTOP)
    os.kill(child.process.pid, signal.SIGSEGV)
    os.kill(child.process.pid, signal.SIGCONT)
    with pytest.raises(ForeignError, match="was killed by SIGSEGV"):
        child.run({"input": ROWS.numpy()})


def huge(path: Path) -> Path:
    """Fills as many values as its input says."""
    fill = node("ConstantOfShape", ["x"], ["y"], value=tensors(one=np.ones(1))[0])
    return simple(path, [fill], {"x": (TensorProto.INT64, ["n"])}, {"y": ["n"]})


@pytest.mark.parametrize("size", [2**45, 2**31])
def test_what_takes_more_memory_than_allowed_is_stopped(tmp_path: Path, size: int) -> None:
    child = Child(huge(tmp_path / "net.onnx"), limits=Limits(memory=4 * GIB))
    assert child.run({"x": np.array([3])})["y"].tolist() == [1, 1, 1]
    with pytest.raises(ForeignError, match="raise `memory` under `onnx:`"):
        child.run({"x": np.array([size])})


def test_a_file_is_checked_whatever_the_limits_are(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = onnx.load(huge(path))
    model.graph.initializer.append(onnx.TensorProto(name="w", data_type=FLOAT, dims=[4], raw_data=b"12"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match="its shape promises 16"):
        Child(path, limits=Limits(memory=4 * GIB))


def endless(path: Path) -> Path:
    """Counts to 2**62."""
    steps = [node("Identity", ["c"], ["go"]), node("Add", ["s", "i"], ["t"])]
    body = graph(steps, {"i": (7, []), "c": (9, []), "s": (7, [])}, {"go": (9, []), "t": (7, [])}).graph
    loop = node("Loop", ["m", "c0", "x"], ["y"], body=body)
    return simple(path, [loop], {"x": (7, [])}, {"y": (7, [])}, {"m": np.array(2**62), "c0": np.array(True)})


def test_what_does_not_answer_is_stopped(tmp_path: Path) -> None:
    child = Child(endless(tmp_path / "net.onnx"), limits=Limits(seconds=20))
    child.limits = Limits(seconds=1.5)
    with pytest.raises(ForeignError, match=r"did not answer within 1\.5 s\. Raise `seconds` under `onnx:`"):
        child.run({"x": np.array(0)})
    assert child.process.poll() == -signal.SIGKILL


def test_what_onnx_runtime_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    path = simple(tmp_path / "net.onnx", [node("NoSuchOperator", ["x"], ["y"])], {"x": ["n"]}, {"y": ["n"]})
    with pytest.raises(RuntimeError, match="NoSuchOperator"):
        Child(path)


def test_what_does_not_fit_the_graph_is_told_in_its_words(good: Path) -> None:
    with pytest.raises(RuntimeError, match="INVALID_ARGUMENT"):
        Child(good).run({"input": ROWS[:, :, :4].numpy()})


def test_the_process_ends_with_the_object_and_is_closed_by_hand(good: Path) -> None:
    model = OnnxModel(good, {}, outside=Outside())
    first, second = model.child.process, Child(good)
    model.close()
    assert first.poll() is not None
    process = second.process
    assert process.poll() is None
    del second
    gc.collect()
    assert process.poll() is not None


def test_the_process_ends_when_its_pipe_closes(good: Path) -> None:
    child = Child(good)
    child.process.stdin.close()
    until = time.monotonic() + 30
    while child.process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert child.process.poll() == 0


def test_the_process_ends_when_its_pipe_closes_while_it_computes(tmp_path: Path) -> None:
    child = Child(endless(tmp_path / "net.onnx"))
    child.process.stdin.write(b"".join(pack({}, {"x": np.array(0)})))
    time.sleep(0.5)  # for it to begin; where it has not, the test shows less
    assert child.process.poll() is None
    child.process.stdin.close()
    assert child.process.wait(30) == 0


def test_secrets_of_the_environment_stay_here(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    child = Child(good)
    content = Path(f"/proc/{child.process.pid}/environ").read_bytes()
    assert b"secret" not in content
    assert b"PATH=" in content


def test_names_are_bound_and_saved_with_the_model(tmp_path: Path) -> None:
    path = simple(tmp_path / "net.onnx", [node("Relu", ["x"], ["y"])], {"x": ["n", 2]}, {"y": ["n", 2]})
    example = {"input": torch.tensor([[1.0, -1.0]])}
    model = OnnxModel(path, example, outside=Outside({"input": "x"}, {"y": "output"}, Limits(seconds=77)))
    assert list(model.feed(example)) == ["x"]
    outputs = model.predict(example)
    assert {name: value.tolist() for name, value in outputs.items()} == {"output": [[1, 0]], "y": [[1, 0]]}
    assert torch.equal(model.predict({"x": example["input"]})["y"], outputs["y"])
    model.save(tmp_path / "saved")
    loaded = OnnxModel.load(tmp_path / "saved")
    assert loaded.outside == Outside({"input": "x"}, {"y": "output"})
    assert torch.equal(loaded.predict(loaded.example)["output"], outputs["output"])


def test_a_link_to_a_file_has_its_data_beside_the_link(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir(), (tmp_path / "home").mkdir()
    with_data(tmp_path / "home" / "net.onnx").rename(tmp_path / "blobs" / "net")
    (tmp_path / "home" / "net.onnx").symlink_to("../blobs/net")
    model = OnnxModel(tmp_path / "home" / "net.onnx", {}, outside=Outside())
    assert model.predict({"input": ROWS})["output"].shape == (5, 4)


def test_what_a_file_was_swapped_for_is_not_copied(tmp_path: Path) -> None:
    model = OnnxModel(with_data(tmp_path / "net.onnx"), {}, outside=Outside())
    (tmp_path / "net.data").unlink()
    (tmp_path / "net.data").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="a link out of its folder"):
        model.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "net.data").exists()


def reader(content: bytes) -> Callable[[int], bytearray]:
    place = [0]

    def read(count: int) -> bytearray:
        place[0] += count
        return bytearray(content[place[0] - count : place[0]])

    return read


def message(header: bytes, rest: bytes = b"") -> bytes:
    return len(header).to_bytes(LENGTH, "little") + header + rest


def test_a_message_comes_back_as_it_was_packed() -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(True)}
    head, found = unpack(reader(b"".join(pack({"do": [1, "x"]}, arrays))), 1_000)
    assert head == {"do": [1, "x"]}
    assert all((found[name] == array).all() and found[name].shape == array.shape for name, array in arrays.items())


@pytest.mark.parametrize(("content", "why"), [
    ((2**60).to_bytes(LENGTH, "little"), "a header of"),
    (message(b"\xff\xfe"), "a header that is none"),
    (message(b"[]"), "a header that is none"),
    (message(b"[" * 100_000), "a header that is none"),
    (message(b'{"head": {}, "arrays": [["a", "object", [1]]]}', bytes(8)), "an array of object"),
    (message(b'{"head": {}, "arrays": [["a", "float32", [-1]]]}', bytes(8)), r"an array of float32 \[-1\]"),
    (message(b'{"head": {}, "arrays": [["a", "float32", [1000, 1000]]]}'), "an array of 4,000,000 bytes"),
    (message(b'{"head": {}, "arrays": [["a", "int8", [600]], ["b", "int8", [600]]]}', bytes(900)), "600 bytes"),
])  # fmt: skip
def test_a_child_is_not_believed(content: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        unpack(reader(content), 1_000)


def test_the_files_of_these_tests_are_good(tmp_path: Path) -> None:
    for path in (huge(tmp_path / "a.onnx"), endless(tmp_path / "b.onnx")):
        onnx.checker.check_model(path)
