"""A file from outside is quantized by a process of its own: the same bytes, the same errors, and no session here."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from onnxruntime.capi.onnxruntime_inference_collection import InferenceSession

from pipeline.errors import ConfigError, ForeignError, ResourceError, ShrinkError, StageError
from pipeline.forms.sandbox.process import DEFAULT, GIB, Limits, Process
from pipeline.forms.sandbox.session import Outside
from pipeline.model import OnnxModel
from pipeline.stage import Stage
from pipeline.task import Split
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.optimum import OptimumQuantization
from stages.quantize.quantizing import quantizer, work
from stages.quantize.static import StaticQuantization
from tests.aliases import Make, Patch
from tests.contexts import bare_context
from tests.graphs import node
from tests.pipeline.forms.sandbox.foreign_files import simple

SAFE = {"reduce_range": True}
STAGES = {
    "minmax": StaticQuantization(batch_size=50),
    "percentile": StaticQuantization(calibration="percentile", activations="int8"),
    "entropy": StaticQuantization(calibration="entropy", **SAFE),
    "dynamic": DynamicQuantization(**SAFE),
    "dynamic-conv": DynamicQuantization(operators=("Conv", "Gemm"), per_channel=False),
    "optimum": OptimumQuantization(target="avx2"),
}
EVERY = [pytest.param(name, marks=[pytest.mark.optimum] if name == "optimum" else []) for name in STAGES]
ENDS = {"input": ["batch", 1, 8, 8]}, {"output": ["batch", 4]}


def network(path: Path) -> Path:
    """A convolution with its BatchNorm, and a linear layer: (N, 1, 8, 8) -> (N, 4)."""
    rng = np.random.default_rng(0)
    values = {"kernel": rng.normal(size=(4, 1, 3, 3)), "head": rng.normal(size=(4, 256)), "bias": rng.normal(size=4)}
    values |= {name: rng.uniform(0.5, 1, 4) for name in ("gain", "shift", "mean", "variance")}
    nodes = [
        node("Conv", ["input", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "gain", "shift", "mean", "variance"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("Flatten", ["r"], ["f"]),
        node("Gemm", ["f", "head", "bias"], ["output"], transB=1, name="last"),
    ]
    return simple(path, nodes, *ENDS, values)


def wide(path: Path) -> Path:
    """A linear layer, and 32 MiB an example on the way to it."""
    values = {"times": np.array([1, 2**17]), "head": np.ones((4, 1), np.float32)}
    nodes = [
        node("Flatten", ["input"], ["f"]),
        node("Tile", ["f", "times"], ["t"]),
        node("ReduceMax", ["t"], ["m"], axes=[1], keepdims=1),
        node("Gemm", ["m", "head"], ["output"], transB=1),
    ]
    return simple(path, nodes, *ENDS, values, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def quantized(tmp_path: Path) -> Callable[..., OnnxModel]:
    """quantized(stage, make=network, limits=None): the result of a file of ours, or of one from outside with limits."""

    def make(stage: Stage, make: Make = network, limits: Limits | None = None, **changes: Any) -> OnnxModel:
        model = OnnxModel(make(tmp_path / "net.onnx"), {}, outside=None if limits is None else Outside(limits=limits))
        return stage.run(model, bare_context(tmp_path / "stage", **changes))  # type: ignore[no-any-return]

    return make


@pytest.fixture
def no_session(monkeypatch: Patch) -> Callable[[], None]:
    """no_session(): from here on none is made in this process."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a session is made in this process")

    return lambda: monkeypatch.setattr(InferenceSession, "__init__", refuse)


@pytest.mark.parametrize("name", EVERY)
def test_the_file_has_the_same_bytes_and_no_session_is_made_here(name: str, quantized: Make, no_session: Make) -> None:
    ours = quantized(STAGES[name]).path.read_bytes()
    no_session()
    theirs = quantized(STAGES[name], limits=DEFAULT)
    assert theirs.path.read_bytes() == ours
    assert theirs.outside == Outside()
    assert list(theirs.path.parent.iterdir()) == [theirs.path]


@pytest.mark.parametrize("name", ["minmax", "dynamic"])
def test_so_it_is_with_weights_beside(name: str, quantized: Make, monkeypatch: Patch) -> None:
    monkeypatch.setattr(quantizer, "EXTERNAL_DATA_BYTES", 0)
    ours = quantized(STAGES[name]).path.read_bytes()
    assert quantized(STAGES[name], limits=DEFAULT).path.read_bytes() == ours


def test_a_file_of_ours_is_quantized_here(quantized: Make, no_session: Make) -> None:
    no_session()
    with pytest.raises(StageError, match="pre-processing: AssertionError: a session is made in this process"):
        quantized(STAGES["dynamic"])


def test_calibration_is_read_batch_by_batch_and_its_progress_shown(quantized: Make) -> None:
    shown: list[tuple[str, int]] = []

    @contextmanager
    def progress(description: str, total: int) -> Iterator[Callable[..., None]]:
        shown.append((description, total))
        yield lambda n, note="": shown.append((description, n))

    quantized(STAGES["minmax"], limits=DEFAULT, progress=progress)
    assert shown == [("calibration", 256), *[("calibration", 50)] * 5, ("calibration", 6)]


def refused(make: Callable[[], Any]) -> str:
    with pytest.raises(ShrinkError) as caught:
        make()
    assert caught.value.exit_code == 3
    return str(caught.value)


def other_inputs(*names: str) -> Split:
    return Split([({name: torch.rand(3, 8, 8) for name in names}, 0)] * 4)  # type: ignore[arg-type]


@pytest.mark.parametrize(("stage", "changes", "message"), [
    (StaticQuantization(exclude=("lost",)), {}, "`exclude` has `lost`, .*did you mean `last`"),
    (DynamicQuantization(exclude=("head",)), {}, "`exclude` has `head`, and no node has that name"),
    (DynamicQuantization(operators=("MatMul",)), {}, "no node was quantized"),
    (StaticQuantization(), {"calibration": other_inputs("pixels")}, r"the calibration data lacks \['input'\]"),
    (StaticQuantization(), {"calibration": other_inputs("input")}, "ONNX Runtime's quantizer: .*INVALID_ARGUMENT"),
])  # fmt: skip
def test_failures_are_the_same_error(stage: Stage, changes: Any, message: str, quantized: Make, tmp_path: Path) -> None:
    ours = refused(lambda: quantized(stage, **changes))
    theirs = refused(lambda: quantized(stage, limits=DEFAULT, **changes))
    assert " ".join(ours.split()) == theirs
    with pytest.raises(StageError, match=message):
        quantized(stage, limits=DEFAULT, **changes)
    assert list((tmp_path / "stage").iterdir()) == []


def test_a_graph_that_cannot_be_optimized_is_an_error_and_not_left_as_it_is(quantized: Make) -> None:
    def torn(path: Path) -> Path:
        return simple(path, [helper.make_node("Gemm", ["input", "nowhere"], ["output"])], *ENDS)

    for limits in (None, DEFAULT):
        with pytest.raises(StageError, match=r"pre-processing: .*nowhere"):
            quantized(STAGES["dynamic"], torn, limits)


def test_a_file_that_does_not_pass_is_opened_by_nobody(quantized: Make) -> None:
    def cut(path: Path) -> Path:
        path.write_bytes(network(path).read_bytes()[:200])
        return path

    with pytest.raises(ConfigError, match=r"net\.onnx: it is damaged or no ONNX file"):
        quantized(STAGES["dynamic"], cut, DEFAULT)


def test_what_the_process_wrote_is_checked_too(quantized: Make, monkeypatch: Patch) -> None:
    def wrote(process: Process, head: dict[str, Any], arrays: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        Path(head["target"]).touch()
        return {"done": True}, {}

    monkeypatch.setattr(Process, "ask", wrote)
    with pytest.raises(ConfigError, match=r"prepared\.onnx: it has 0 bytes"):
        quantized(STAGES["dynamic"], limits=DEFAULT)


def test_a_process_that_always_asks_is_ended(quantized: Make, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Process, "ask", lambda *_: ({"done": False}, {}))
    with pytest.raises(ForeignError, match=r"net\.onnx: it asks for more than 0 batches"):
        quantized(STAGES["dynamic"], limits=DEFAULT)


def test_a_process_that_is_killed_is_one_error(quantized: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    started: list[Process] = []

    class Noted(Process):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            started.append(self)

    @contextmanager
    def progress(description: str, total: int) -> Iterator[Callable[..., None]]:
        yield lambda n, note="": started[-1].process.kill()

    monkeypatch.setattr(work, "Process", Noted)
    with pytest.raises(ForeignError, match=r"net\.onnx: the process that quantizes it was killed by SIGKILL") as caught:
        quantized(STAGES["minmax"], limits=DEFAULT, progress=progress)
    assert caught.value.exit_code == 6
    assert list((tmp_path / "stage").iterdir()) == []
    quantized(STAGES["minmax"], limits=DEFAULT)
    assert started[-1].process.poll() is not None


def test_what_takes_more_memory_than_allowed_is_stopped(quantized: Make, tmp_path: Path) -> None:
    limits = Limits(memory=2 * GIB)
    model = OnnxModel(wide(tmp_path / "net.onnx"), {}, outside=Outside(limits=limits))
    assert model.predict({"input": torch.rand(2, 1, 8, 8)})["output"].shape == (2, 4)
    with pytest.raises(ForeignError, match=r"net\.onnx: the process that quantizes it .* raise `memory`") as caught:
        quantized(StaticQuantization(batch_size=128), wide, limits)
    assert caught.value.exit_code == 6
    assert list((tmp_path / "stage").iterdir()) == []
    quantized(StaticQuantization(batch_size=2, examples=4), wide, limits)


def test_what_takes_longer_than_allowed_is_stopped(quantized: Make) -> None:
    with pytest.raises(ForeignError, match=r"that quantizes it did not answer within 0\.01 s\. Raise `seconds`"):
        quantized(STAGES["dynamic"], limits=Limits(seconds=0.01))


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, ResourceError), (errno.EFBIG, ForeignError)])
def test_a_full_disk_and_too_large_a_file_are_told(number: int, error: Any, tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "full.py").write_text(f"import os\nraise OSError({number}, os.strerror({number}))\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = Process(network(tmp_path / "net.onnx"), "full", "quantizes", DEFAULT)
    with pytest.raises(error, match=rf"net\.onnx: .*Errno {number}") as caught:
        process.ask({}, {})
    assert caught.value.exit_code == {errno.ENOSPC: 4, errno.EFBIG: 6}[number]
