"""Packages for other runtimes: predict.py answers with that runtime and numpy alone, as ONNX Runtime does."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.base.files import folder_digest
from pipeline.cli.catalogue import target_of
from pipeline.deploy import deploy
from pipeline.errors import ConfigError, StageError
from pipeline.measure.size import size_bytes
from pipeline.model import OnnxModel, TorchModel
from pipeline.records.parts.models import ClassMeasure
from pipeline.records.record import Record
from pipeline.report.package import package
from stages.benchmark import deployment
from tests import records
from tests.aliases import Make, Patch

# Runs predict.py as python would, and refuses whatever is neither of Python itself, nor in the package, nor allowed.
ALONE = """
import runpy, sys
from pathlib import Path

folder, allowed = Path(sys.argv[2]).parent, set(sys.argv[1].split(","))
own = {path.stem for path in folder.glob("*.py")}
sys.path[:0] = [str(folder)]

class Refused:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {*sys.stdlib_module_names, *own, *allowed}:
            raise ModuleNotFoundError(f"{name} is imported", name=name)

sys.meta_path.insert(0, Refused())
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
IMPORTS = {"openvino": "openvino", "ort": "onnxruntime", "ncnn": "ncnn", "mnn": "MNN,_mnncengine"}
FILES = {
    "openvino": {"model.onnx"}, "ort": {"model.ort"}, "ncnn": {"model.param", "model.bin"}, "mnn": {"model.mnn"},
}  # fmt: skip
BESIDE = {"predict.py", "model.json", "requirements.txt", "README.md", "SHA256SUMS"}
READERS = {"session.py", "runner.py", "loaded.py"}


@pytest.fixture
def finished(tiny: Callable[..., TorchModel], tmp_path: Path) -> Callable[..., Path]:
    """finished(**changes of the record): a run folder whose last model is the tiny network as an ONNX file."""

    def make(**changes: Any) -> Path:
        folder, model = tmp_path / "runs" / "one", tiny()
        place = folder / "stages" / "0-export.onnx" / "model"
        deploy(model, tmp_path / "deployed.onnx").save(place)
        file = OnnxModel(place / "model.onnx", model.example)
        figures = {"size_bytes": size_bytes(file), "digest": folder_digest(place)}
        figures |= {"classes": [ClassMeasure(label="0", support=3, score=1.0)]}
        places = {"folder": "stages/0-export.onnx/model", "file": "stages/0-export.onnx/model/model.onnx"}
        stages = [records.stage(0, "export.onnx", **figures, **places)]
        more = [records.stage(1, "benchmark.latency", changed=False, **figures, **places, latency=rows)
                for rows in [changes.pop("rows", None)] if rows]  # fmt: skip
        given: dict[str, Any] = {"run": "one", "folder": str(folder), "config": {"name": "tiny"}, **changes}
        records.record(*stages, *more, **given).save()
        events = [{"event": "start"}, {"event": "end"}]
        (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        return folder

    return make


def made(run: Path, output: Path, name: str) -> Path:
    return package(run, output, target=target_of(name, Record.load(run)))


def python_of(name: str) -> str:
    """The interpreter that has a runtime; skips where there is none."""
    from pipeline.cli.catalogue import runtime_called

    runtime = runtime_called(name)
    if runtime.missing():
        pytest.skip(runtime.missing())
    return str(runtime.python)


def predicted(python: str, folder: Path, inputs: Path, allowed: str) -> Any:
    words = [python, "-I", "-c", ALONE, f"numpy,{allowed}", str(folder / "predict.py"), str(inputs)]
    ended = subprocess.run(words, cwd=folder.parent, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", [*IMPORTS])
def test_predict_answers_with_the_runtime_and_numpy_alone(finished: Make, tmp_path: Path, name: str) -> None:
    python, run = python_of(name), finished()
    folder, usual = made(run, tmp_path / name, name), package(run, tmp_path / "usual")
    files = {path.name for path in folder.iterdir()}
    assert files == FILES[name] | BESIDE | (set() if name == "ort" else READERS)
    np.save(tmp_path / "inputs.npy", np.random.default_rng(0).random((5, 1, 8, 8), np.float32))
    rows = predicted(python, folder, tmp_path / "inputs.npy", IMPORTS[name])
    expected = predicted(sys.executable, usual, tmp_path / "inputs.npy", "onnxruntime")
    assert [row["label"] for row in rows] == [row["label"] for row in expected]
    np.testing.assert_allclose([row["score"] for row in rows], [row["score"] for row in expected], rtol=1e-4)
    about = json.loads((folder / "model.json").read_text())["runtime"]
    assert about["agreement"]["agrees"]
    assert about["size_bytes"] == sum((folder / file).stat().st_size for file in FILES[name])
    lines = (folder / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in lines] == [*{"ort": ["onnxruntime"]}.get(name, [name]), "numpy"]
    assert lines[0].partition("==")[2] == about["version"]
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK") == len(files) - 1


def test_predict_names_a_wrong_input_as_usual(finished: Make, tmp_path: Path) -> None:
    folder = made(finished(), tmp_path / "out", "openvino")
    np.save(tmp_path / "inputs.npy", np.zeros((1, 1, 8, 9), np.float32))
    np.save(tmp_path / "none.npy", np.zeros((0, 1, 8, 8), np.float32))
    (tmp_path / "text.npy").write_text("no array")

    def said(name: str) -> tuple[int, str, str]:
        words = [sys.executable, str(folder / "predict.py"), str(tmp_path / name)]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        return ended.returncode, ended.stdout, ended.stderr

    assert "has the shape [1, 1, 8, 9]; expected ['batch', 1, 8, 8]" in said("inputs.npy")[2]
    assert said("text.npy") == (1, "", f"{tmp_path / 'text.npy'} cannot be read: it is no .npz or .npy of numbers\n")
    assert said("gone.npy") == (1, "", f"{tmp_path / 'gone.npy'} cannot be read: No such file or directory\n")
    assert said("none.npy") == (0, "[]\n", "")


def test_what_takes_one_example_at_a_time_is_given_one_after_the_other(
    finished: Make, tmp_path: Path, monkeypatch: Patch
) -> None:
    from stages.benchmark.runtimes.openvino import OpenVino

    monkeypatch.setattr(OpenVino, "fixed_batch", True)
    folder = made(finished(), tmp_path / "out", "openvino")
    assert json.loads((folder / "model.json").read_text())["runtime"]["batch"] == 1
    assert "one example at a time" in (folder / "README.md").read_text()
    np.save(tmp_path / "inputs.npy", np.zeros((3, 1, 8, 8), np.float32))
    assert len(predicted(sys.executable, folder, tmp_path / "inputs.npy", "openvino")) == 3


def test_it_has_the_settings_that_the_run_measured_it_with(finished: Make, tmp_path: Path) -> None:
    run = finished(rows=[records.bench("openvino", settings={"precision": "native"})])
    record = Record.load(run)
    record.stages[1].settings = {"runtimes": ["onnxruntime", {"use": "openvino", "precision": "native"}]}
    record.save()
    folder = made(run, tmp_path / "out", "openvino")
    runtime = json.loads((folder / "model.json").read_text())["runtime"]
    assert (runtime["settings"], runtime["told"]["precision"]) == ({"precision": "native"}, "native")


def scored(verdict: str) -> list[dict[str, Any]]:
    return [records.bench("openvino", settings={"precision": "f32"}, score={"value": 0.875, "verdict": verdict})]


def test_answers_that_differ_are_refused_unless_the_run_scored_them(
    finished: Make, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(deployment, "tolerance_of", lambda _: -1.0)
    run = finished()
    with pytest.raises(StageError, match=r"openvino: its answers differ from ONNX Runtime's.*Measure its score"):
        made(run, tmp_path / "out", "openvino")
    assert not (tmp_path / "out").exists()
    shutil.rmtree(run)
    folder = made(finished(rows=scored("within the budget")), tmp_path / "out", "openvino")
    assert "score 0.8750 there" in (folder / "README.md").read_text()


def test_another_model_is_no_package(finished: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="openvino f32, threads 1, batch 1: its answers are those of another model"):
        made(finished(rows=scored("other model")), tmp_path / "out", "openvino")


def test_a_runtime_that_is_not_here_tells_the_command(finished: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    from stages.benchmark.environments.environment import Environment

    monkeypatch.setattr(Environment, "folder", tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"mnn cannot run here: .*shrink runtimes install mnn"):
        made(finished(), tmp_path / "out", "mnn")
    assert not (tmp_path / "out").exists()


def test_an_unknown_runtime_has_the_nearest(finished: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean `openvino`"):
        made(finished(), tmp_path / "out", "openvini")


def test_what_needs_the_models_code_or_another_form_is_refused(finished: Make, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"torch takes a model of the form torch, .* is onnx\..*pipeline\.model\.load"
    ):
        made(finished(), tmp_path / "out", "torch")
