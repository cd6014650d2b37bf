"""A chain that starts with an ONNX file, whole: run, planned, resumed, compared, packaged, logged, and stopped."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
import torch

from pipeline.build.build import build
from pipeline.build.source import load_config
from pipeline.cli.catalogue import pipeline_schema
from pipeline.compare.compare import compare
from pipeline.errors import ForeignError
from pipeline.forms.sandbox.session import Child
from pipeline.model import OnnxModel, load
from pipeline.records.record import Record
from pipeline.report.package import package
from pipeline.run.plan import as_json
from pipeline.run.store.store import Store
from pipeline.runner import resume, run, sync_run
from tests.aliases import Make, Patch
from tests.forked import shrink
from tests.pipeline.forms.sandbox.foreign_files import bomb, relocated, with_data
from tests.users import chain_of

TIMED = "benchmark.latency, rounds: 1, iterations: 2, warmup: 0"
CHAIN = chain_of("quantize.static", TIMED, model="onnx: net.onnx")
DYNAMIC = CHAIN.replace("quantize.static", "quantize.dynamic")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A run by the command line, with MLflow, of a file with external data; its folder's parent and its record."""
    from tests.conftest import DATA

    home = tmp_path_factory.mktemp("whole")
    (home / "data.py").write_text(DATA)
    (home / "chain.yaml").write_text(CHAIN)
    with_data(home / "net.onnx")
    ended = shrink("run", "chain.yaml", "--json", cwd=home)
    assert ended.returncode == 0, ended.stderr
    return home, Record.model_validate_json(ended.stdout)


def test_the_baseline_is_the_file_itself(whole: tuple[Path, Record]) -> None:
    home, record = whole
    found = load(Path(record.folder) / record.baseline.folder)
    assert record.baseline.form == "onnx"
    assert record.baseline.size_bytes == sum((home / name).stat().st_size for name in ("net.onnx", "net.data"))
    assert (Path(record.folder) / record.baseline.file).read_bytes() == (home / "net.onnx").read_bytes()
    assert isinstance(found, OnnxModel)
    assert found.outside is not None
    assert (record.baseline.params, record.baseline.macs) == (64 * 4 + 4, 64 * 4)
    assert record.baseline.score > 0.9


def test_it_is_quantized_and_timed_beside_the_file(whole: tuple[Path, Record]) -> None:
    _, record = whole
    quantized, timed = record.stages
    assert (quantized.form, timed.form) == ("onnx", "onnx")
    assert quantized.retention.value > 0.95
    assert quantized.payload_bytes < 0.5 * record.baseline.payload_bytes  # type: ignore[union-attr]
    (row,) = timed.latency
    assert row["ratio"] is not None
    assert any("is run in a process of its own" in note for note in record.notes)
    assert record.config["model"] == {"arguments": {}, "onnx": {"file": "net.onnx", "seconds": 300.0}}


def test_the_report_tells_the_file(whole: tuple[Path, Record]) -> None:
    _, record = whole
    assert "net.onnx" in (Path(record.folder) / "report.html").read_text()


def test_it_is_packaged_with_the_names_of_the_graph(whole: tuple[Path, Record], tmp_path: Path) -> None:
    _, record = whole
    told = json.loads((package(Path(record.folder), tmp_path / "out") / "model.json").read_text())
    assert [port["name"] for port in told["inputs"]] == ["input"]
    assert told["classifier"]["output"] == "output"


def test_resumed_it_computes_nothing_again(whole: tuple[Path, Record]) -> None:
    _, record = whole
    again = resume(record.folder, track=False)
    assert [stage.cached for stage in again.stages] == [True, True]
    assert again.baseline.digest == record.baseline.digest  # type: ignore[union-attr]


def states(path: Path, runs: Path) -> list[str]:
    found = as_json(build(*load_config(path)), Store(runs / "store"))
    assert found["model"] == {"form": "onnx", "params": 260, "macs": 256}
    return [entry["state"] for entry in found["chain"]]


def test_the_plan_knows_the_file_and_its_data_by_their_content(whole: tuple[Path, Record], tmp_path: Path) -> None:
    home, _ = whole
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in ("data.py", "chain.yaml", "net.onnx", "net.data"):
        shutil.copy(home / name, copy / name)
    assert states(copy / "chain.yaml", home / "runs") == ["cached", "cached"]
    content = bytearray((copy / "net.data").read_bytes())
    content[:4] = np.float32(0.25).tobytes()
    (copy / "net.data").write_bytes(content)
    assert states(copy / "chain.yaml", home / "runs") == ["would run", "would run"]


def test_limits_are_no_part_of_what_a_result_depends_on(whole: tuple[Path, Record], tmp_path: Path) -> None:
    home, _ = whole
    other = home / "limits.yaml"
    other.write_text(CHAIN.replace("net.onnx}", "{file: net.onnx, seconds: 99}}"))
    assert states(other, home / "runs") == ["cached", "cached"]


@pytest.fixture
def quick(monkeypatch: Patch) -> None:
    monkeypatch.setattr("stages.benchmark.latency.warn_of_load", lambda warn: None)


@pytest.mark.parametrize("sync", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_other_names_go_through_a_whole_chain(folder: Make, tmp_path: Path, quick: None, sync: bool) -> None:
    record = run(folder(DYNAMIC, names=("pixels", "scores")), runs=tmp_path / "runs", track=False)
    graph = onnx.load(Path(record.folder) / record.final.file).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["pixels", "scores"]
    assert [port.name for port in (*record.interface.inputs, *record.interface.outputs)] == ["pixels", "scores"]
    kept = load(Path(record.folder) / record.final.folder)
    assert set(kept.predict({"input": torch.rand(3, 1, 8, 8)})) == {"output", "scores"}
    if sync:
        assert sync_run(record.folder)
    made = package(Path(record.folder), tmp_path / "out")
    told = json.loads((made / "model.json").read_text())
    assert ([port["name"] for port in told["inputs"]], told["classifier"]["output"]) == (["pixels"], "scores")
    np.savez(tmp_path / "in.npz", pixels=np.zeros((2, 1, 8, 8), np.float32))
    command = [sys.executable, str(made / "predict.py"), str(tmp_path / "in.npz")]
    assert len(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)) == 2


@pytest.mark.slow
def test_strategies_that_start_with_a_file_are_compared(folder: Make, tmp_path: Path) -> None:
    stages = CHAIN.partition("stages:\n")[0]
    path = folder(
        f"{stages}strategies:\n  static:\n    - {{use: quantize.static}}\n  dynamic:\n    - {{use: quantize.dynamic}}\n"
    )
    found = compare([path], runs=tmp_path / "runs", track=False)
    assert [(s.name, s.failures) for s in found.strategies] == [("baseline", {}), ("static", {}), ("dynamic", {})]


def test_a_hostile_file_ends_the_command_with_2_and_one_line(project: Make) -> None:
    path = project(CHAIN)
    relocated(with_data(path.parent / "net.onnx"), location="../../etc/passwd")
    ended = shrink("run", path, cwd=path.parent)
    assert ended.returncode == 2
    assert ended.stderr.startswith("shrink: ")
    assert "the external data of `weight` lie in `../../etc/passwd`" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_crash_of_the_child_ends_the_command_with_6_and_one_line(folder: Make) -> None:
    path = folder(CHAIN, make=bomb)
    ended = shrink("run", path, cwd=path.parent)
    assert ended.returncode == 6, ended.stderr
    assert "net.onnx: the process that runs it ended" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_dead_child_ends_a_run_with_6_and_a_record(folder: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    path, calls = folder(DYNAMIC), []
    predict = OnnxModel.predict

    def dying(model: OnnxModel, inputs: Any) -> Any:
        if len(next(iter(inputs.values()))) > 9:  # while it is measured
            model.child.process.kill()
            calls.append(model)
        return predict(model, inputs)

    monkeypatch.setattr(OnnxModel, "predict", dying)
    with pytest.raises(ForeignError, match="was killed by SIGKILL") as caught:
        run(path, runs=tmp_path / "runs", track=False)
    assert caught.value.run
    assert len(calls) == 1
    failure = Record.load(caught.value.run).failure
    assert failure.exit_code == 6
    assert "model, measured" in failure.where
    assert "start/model/model.onnx" in failure.message
    monkeypatch.undo()
    monkeypatch.setattr("stages.benchmark.latency.warn_of_load", lambda warn: None)
    assert resume(caught.value.run, track=False).failure is None


def test_a_child_makes_every_prediction(folder: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    paths: list[Path] = []
    start = Child.__init__

    def noted(child: Child, path: Path, **how: Any) -> None:
        paths.append(path)
        start(child, path, **how)

    monkeypatch.setattr(Child, "__init__", noted)
    record = run(folder(DYNAMIC.partition("  - {use: benchmark")[0]), runs=tmp_path / "runs", track=False)
    opened = {str(path.relative_to(record.folder)) for path in paths if path.is_relative_to(record.folder)}
    assert opened >= {"start/model/model.onnx", "stages/0-quantize.dynamic/model/model.onnx"}


def test_a_bound_input_is_calibrated(folder: Make, tmp_path: Path) -> None:
    path = folder(CHAIN.partition("  - {use: benchmark")[0], names=("pixels", "scores"))
    assert run(path, runs=tmp_path / "runs", track=False).stages[0].changed


def test_editors_know_the_key() -> None:
    checker = jsonschema.Draft202012Validator(pipeline_schema())

    def fits(model: Any) -> bool:
        return bool(checker.is_valid({"task": "data.py", "model": model, "stages": [{"use": "quantize.static"}]}))

    assert fits({"onnx": "net.onnx"})
    assert fits({"onnx": {"file": "net.onnx", "memory": "2 GiB"}, "sha256": "a" * 64})
    assert fits({"use": "models.py:net", "width": 3})
    assert not fits({})
    assert not fits({"onnx": {"memory": 3}})
    assert not fits({"onnx": "net.onnx", "use": "models.py:net"})
