import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx.external_data_helper import convert_model_to_external_data

from pipeline import runner
from pipeline.base.batches import Inputs
from pipeline.base.files import folder_digest
from pipeline.errors import ConfigError
from pipeline.measure.cost import onnx_params
from pipeline.measure.size import size_bytes
from pipeline.model import OnnxModel
from pipeline.records.parts.interface import Interface, Port
from pipeline.records.parts.models import ClassMeasure
from pipeline.records.record import Failure, Record
from pipeline.report import package as packaging
from pipeline.report.package import package
from tests import records
from tests.aliases import Make
from tests.graphs import graph, node
from tests.packing import ternary

Ended = subprocess.CompletedProcess[str]

ROOT = Path(__file__).parents[3]
FILES = {"model.onnx", "predict.py", "model.json", "requirements.txt", "SHA256SUMS", "README.md"}

# Runs a script as python would, in an interpreter that has nothing of ours and no torch.
ALONE = """
import runpy, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "pipeline", "stages", "onnx", "scipy", "pydantic", "safetensors"):
            raise ImportError(f"{name} is imported")

sys.meta_path.insert(0, Refused())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def two_inputs() -> onnx.ModelProto:
    """(N, 3) floats times a weight (3, 4), plus the sum of (N, length) int64 with any length."""
    nodes = [node("MatMul", ["x", "weight"], ["scores"]), node("ReduceSum", ["tokens", "axis"], ["total"])]
    inputs = {"x": ["batch", 3], "tokens": (TensorProto.INT64, ["batch", "length"])}
    outputs = {"scores": ["batch", 4], "total": (TensorProto.INT64, ["batch", 1])}
    return graph(nodes, inputs, outputs, {"weight": np.linspace(-2, 3, 12).reshape(3, 4), "axis": np.array([1])})


EXAMPLE: Inputs = {"x": torch.linspace(-1, 1, 6).reshape(2, 3), "tokens": torch.arange(10).reshape(2, 5)}
INTERFACE = Interface(
    inputs=[
        Port(name="x", shape=[3], dtype="float32", low=-1, high=1, mean=0),
        Port(name="tokens", shape=[-1], dtype="int64", low=0, high=9, mean=4.5),
    ],
    outputs=[Port(name="scores", shape=[4], dtype="float32"), Port(name="total", shape=[1], dtype="int64")],
    labels=["cat", "dog", "<b>"],
    preprocessing="lower case",
)
CLASSES = [ClassMeasure(label="cat", support=3, score=1.0)]


@pytest.fixture
def finished(tmp_path: Path) -> Callable[..., Path]:
    """finished(**changes of the record): the folder of a run that came to its end, with the two-input model."""

    def make(external: bool = False, packed: bool = False, **changes: Any) -> Path:
        folder, made = tmp_path / "runs" / "one", tmp_path / "made"
        made.mkdir()
        proto = two_inputs()
        if external:  # in a folder below
            (made / "weights").mkdir()
            convert_model_to_external_data(proto, location="weights/all.bin", size_threshold=64)
        onnx.save(proto, made / "model.onnx")
        if packed:
            ternary(made / "model.onnx")
        place = folder / "stages" / "0-export.onnx" / "model"
        OnnxModel(made / "model.onnx", EXAMPLE).save(place)
        found: dict[str, Any] = {"size_bytes": size_bytes(OnnxModel(place / "model.onnx", EXAMPLE)), "params": 12}
        found |= {"folder": "stages/0-export.onnx/model", "file": "stages/0-export.onnx/model/model.onnx"}
        found |= {"digest": folder_digest(place), "classes": CLASSES}
        given: dict[str, Any] = {"run": "one", "folder": str(folder), "config": {"name": "two"}}
        given |= {"data": {"test": {"digest": "abc"}}, "interface": INTERFACE}
        given |= {"environment": {"versions": {"onnxruntime": "1.2.3", "numpy": "4.5.6"}}}
        records.record(records.stage(0, "export.onnx", **found), **{**given, **changes}).save()
        events = [{"event": "start"}, {"event": "end"}]
        (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        return folder

    return make


def alone(package: Path, inputs: Path) -> Ended:
    """predict.py in a fresh process that cannot import what a target does not have."""
    words = [sys.executable, "-I", "-c", ALONE, str(package / "predict.py"), str(inputs)]
    return subprocess.run(words, cwd=package.parent, capture_output=True, text=True, check=False)


def saved(inputs: Inputs, path: Path) -> Path:
    arrays: dict[str, Any] = {name: value.numpy() for name, value in inputs.items()}
    np.savez(path, **arrays)
    return path


def test_predict_gives_label_and_probability_with_onnxruntime_and_numpy_alone(finished: Make, tmp_path: Path) -> None:
    made = package(finished(), tmp_path / "out")
    done = alone(made, saved(EXAMPLE, tmp_path / "inputs.npz"))
    assert done.returncode == 0, done.stderr
    scores = OnnxModel(made / "model.onnx", EXAMPLE).predict(EXAMPLE)["scores"]
    value, best = scores.double().softmax(-1).max(-1)
    labels = ["cat", "dog", "<b>", "3"]  # the fourth has no name
    assert [row["label"] for row in json.loads(done.stdout)] == [labels[i] for i in best.tolist()]
    np.testing.assert_allclose([row["score"] for row in json.loads(done.stdout)], value, rtol=1e-6)


def test_predict_gives_the_outputs_of_what_is_no_classifier(finished: Make, tmp_path: Path) -> None:
    folder = finished()
    record = Record.load(folder)
    record.stages[0].classes = []
    record.save()
    done = alone(package(folder, tmp_path / "out"), saved(EXAMPLE, tmp_path / "inputs.npz"))
    expected = OnnxModel(tmp_path / "out" / "model.onnx", EXAMPLE).predict(EXAMPLE)
    assert json.loads(done.stdout) == {name: value.tolist() for name, value in expected.items()}


@pytest.mark.parametrize(("changes", "message"), [
    ({"tokens": None}, r"the inputs are ['x']; expected ['tokens', 'x']"),
    ({"more": torch.zeros(2)}, r"the inputs are ['more', 'tokens', 'x']; expected ['tokens', 'x']"),
    ({"x": torch.zeros(2, 3).double()}, "the input x has the dtype float64; expected float32"),
    ({"tokens": torch.zeros(2, 5).int()}, "the input tokens has the dtype int32; expected int64"),
    ({"x": torch.zeros(2, 4)}, "the input x has the shape [2, 4]; expected ['batch', 3]"),
    ({"x": torch.zeros(3)}, "the input x has the shape [3]; expected ['batch', 3]"),
    ({"x": torch.zeros(2, 3, 1)}, "the input x has the shape [2, 3, 1]; expected ['batch', 3]"),
])  # fmt: skip
def test_predict_names_a_wrong_input(finished: Make, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    inputs = {name: value for name, value in {**EXAMPLE, **changes}.items() if value is not None}
    done = alone(package(finished(), tmp_path / "out"), saved(inputs, tmp_path / "inputs.npz"))
    assert (done.returncode, done.stdout, done.stderr.strip()) == (1, "", message)


def test_predict_takes_an_array_where_there_is_one_input_and_runs_no_pickle(quick: Make, tmp_path: Path) -> None:
    made = package(Path(runner.run(quick(), runs=tmp_path / "runs", track=False).folder), tmp_path / "out")
    images = torch.rand(3, 1, 8, 8)
    np.save(tmp_path / "inputs.npy", images.numpy())
    done = alone(made, tmp_path / "inputs.npy")
    best = OnnxModel(made / "model.onnx", {}).predict({"input": images})["output"].argmax(-1)
    assert [row["label"] for row in json.loads(done.stdout)] == [str(i) for i in best.tolist()]
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "no .npz or .npy of numbers" in alone(made, tmp_path / "pickled.npy").stderr


def test_predict_is_under_50_lines() -> None:
    assert len(packaging.PREDICT.read_text().splitlines()) < 50


def test_the_folder_has_what_a_target_needs_and_the_sums_are_right(finished: Make, tmp_path: Path) -> None:
    made = package(finished(), tmp_path / "out")
    assert {str(path.relative_to(made)) for path in made.rglob("*")} == FILES
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=made, capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK") == len(FILES) - 1
    assert (made / "requirements.txt").read_text() == "onnxruntime==1.2.3\nnumpy==4.5.6\n"
    assert len((made / "README.md").read_text().splitlines()) <= 10
    assert os.stat(made).st_mode & 0o777 == 0o755


def test_the_description_has_the_interface_the_figures_and_where_it_comes_from(finished: Make, tmp_path: Path) -> None:
    made = package(finished(verdict="pass"), tmp_path / "out")
    found = json.loads((made / "model.json").read_text())
    assert found["inputs"] == [port.model_dump() for port in INTERFACE.inputs]
    assert (found["labels"], found["preprocessing"]) == (["cat", "dog", "<b>"], "lower case")
    assert found["classifier"] == {"output": "scores", "labels": ["cat", "dog", "<b>", "3"]}
    assert found["figures"]["size_bytes"] == (made / "model.onnx").stat().st_size
    assert (found["figures"]["score"], found["figures"]["verdict"], found["run"]) == (0.9, "pass", "one")
    assert found["digests"]["data"] == {"test": {"digest": "abc"}}
    assert found["digests"]["model"] in (made / "SHA256SUMS").read_text()


def test_a_run_that_kept_no_interface_is_described_from_the_file(finished: Make, tmp_path: Path) -> None:
    found = json.loads((package(finished(interface=None), tmp_path / "out") / "model.json").read_text())
    assert [(port["name"], port["shape"], port["dtype"]) for port in (*found["inputs"], *found["outputs"])] == [
        ("x", [3], "float32"),
        ("tokens", [-1], "int64"),
        ("scores", [4], "float32"),
        ("total", [1], "int64"),
    ]
    assert found["classifier"]["labels"] == ["0", "1", "2", "3"]


def test_data_outside_of_the_graph_comes_along(finished: Make, tmp_path: Path) -> None:
    made = package(finished(external=True), tmp_path / "out")
    assert (made / "weights" / "all.bin").stat().st_size
    assert "  weights/all.bin\n" in (made / "SHA256SUMS").read_text()
    done = alone(made, saved(EXAMPLE, tmp_path / "inputs.npz"))
    assert done.returncode == 0, done.stderr


def test_a_packed_file_has_the_unpacked_one_beside_it_where_that_is_asked_for(finished: Make, tmp_path: Path) -> None:
    folder = package(finished(packed=True), tmp_path / "out", unpacked=True)
    assert {file.name for file in folder.iterdir()} == FILES | {"unpacked.onnx"}
    ids = {"ids": torch.arange(9)}
    packed, plain = (OnnxModel(folder / name, ids) for name in ("model.onnx", "unpacked.onnx"))
    assert torch.equal(plain.predict(ids)["y"], packed.predict(ids)["y"])
    assert onnx_params(plain) == onnx_params(packed) == 64 * 64
    assert "unpacked.onnx gives the same outputs" in (folder / "README.md").read_text()


def test_a_file_that_is_not_packed_has_none_beside_it(finished: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its weights are not packed\. Leave --unpacked out"):
        package(finished(), tmp_path / "out", unpacked=True)
    assert not (tmp_path / "out").exists()


def test_data_that_lies_elsewhere_is_refused(finished: Make, tmp_path: Path) -> None:
    folder = finished(external=True)
    weights = folder / "stages" / "0-export.onnx" / "model" / "weights"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    record = Record.load(folder)
    record.stages[0].digest = folder_digest(weights.parent)
    record.save()
    with pytest.raises(ConfigError, match="this is a link out of the run folder"):
        package(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_the_measured_one_is_refused(finished: Make, tmp_path: Path) -> None:
    folder = finished()
    file = folder / "stages" / "0-export.onnx" / "model" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="it is not what was written"):
        package(folder, tmp_path / "out")


def test_a_deployed_file_that_is_another_than_was_measured_is_refused(quick: Make, tmp_path: Path) -> None:
    chain = quick().read_text().replace("  - {use: export.onnx}\n", "")
    record = runner.run(quick(chain), runs=tmp_path / "runs", track=False)
    assert record.final.form == "torch"
    package(Path(record.folder), tmp_path / "out")
    file = Path(record.folder) / record.final.file
    proto = onnx.load(file)
    proto.doc_string = "something else"
    onnx.save(proto, file)
    with pytest.raises(ConfigError, match=r"deployed\.onnx: it is not what was written"):
        package(Path(record.folder), tmp_path / "again")


@pytest.mark.parametrize(("changes", "message"), [
    ({"failure": Failure(where="stages[1]", message="no", exit_code=3)}, r"it ended in stages\[1\], so it has no"),
    ({"stages": []}, "it has not come to its end"),
])  # fmt: skip
def test_a_run_without_model_is_refused(finished: Make, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message}.*shrink resume"):
        package(finished(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_killed_is_refused_also_after_an_earlier_end(finished: Make, tmp_path: Path) -> None:
    folder = finished()
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"event": "start"}\n')
    with pytest.raises(ConfigError, match="this run has not come to its end"):
        package(folder, tmp_path / "out")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        package(tmp_path, tmp_path / "out")


def test_an_output_that_is_not_empty_is_refused_and_stays(finished: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    folder = finished()
    package(folder, tmp_path / "out")
    with pytest.raises(ConfigError, match="expected a folder that is new or empty"):
        package(folder, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_nothing_is_left_of_a_failed_package(finished: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> str:
        raise OSError(28, "No space left on device")

    folder = finished()
    before = set(tmp_path.iterdir())
    monkeypatch.setattr(packaging, "_sums", full)
    with pytest.raises(OSError, match="No space"):
        package(folder, tmp_path / "out")
    assert set(tmp_path.iterdir()) == before


def test_a_copy_that_differs_is_refused(finished: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished()
    monkeypatch.setattr(shutil, "copyfile", lambda source, place: Path(place).write_bytes(b"half"))
    with pytest.raises(ConfigError, match="the copy differs"):
        package(folder, tmp_path / "out")


@pytest.mark.slow
def test_predict_gives_what_the_model_gives_in_an_environment_of_those_two(project: Make, tmp_path: Path) -> None:
    made = package(Path(runner.run(project(), runs=tmp_path / "runs", track=False).folder), tmp_path / "out")
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "-r", str(made / "requirements.txt"), "-c", "constraints.txt"]
    subprocess.run(install, cwd=ROOT, check=True, capture_output=True)
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "torch" not in listed
    images = torch.rand(16, 1, 8, 8)
    words = [python, "-I", str(made / "predict.py"), str(saved({"input": images}, tmp_path / "inputs.npz"))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs = OnnxModel(made / "model.onnx", {}).predict({"input": images})["output"]
    value, best = outputs.double().softmax(-1).max(-1)
    assert [row["label"] for row in json.loads(done.stdout)] == [str(i) for i in best.tolist()]
    np.testing.assert_allclose([row["score"] for row in json.loads(done.stdout)], value, rtol=1e-6)
