"""A chain with an encoder-decoder from its training to the folder to deploy, as a user runs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.gate.expected import of_run
from pipeline.model import load
from pipeline.records.record import Record
from pipeline.report.package import package
from pipeline.run.plan import as_json
from pipeline.run.store.store import Store
from tests.forked import shrink
from tests.translators import copies, inputs

pytestmark = [pytest.mark.slow, pytest.mark.optimum]
TESTS = Path(__file__).parents[3]
ALONE = """
import runpy, sys
sys.modules |= dict.fromkeys(["torch", "transformers", "optimum"])  # importing them fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
CHAIN = """
task: {use: "translators.py:task", train: 128}
model: {use: "translators.py:marian"}
baseline:
  - {use: train.supervised, epochs: 2, learning_rate: 0.01}
stages:
  - {use: export.seq2seq, agreement: 0}
  - {use: quantize.optimum}
budget:
  size: {max: 0.6, of: baseline}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task's file and a run of the chain in `runs`."""
    made = tmp_path_factory.mktemp("translation")
    shutil.copyfile(TESTS / "translators.py", made / "translators.py")
    (made / "chain.yaml").write_text(CHAIN)
    ended = shrink("run", "chain.yaml", "--runs", "runs", cwd=made, MLFLOW_TRACKING_URI=f"sqlite:///{made}/mlflow.db")
    assert ended.returncode == 0, ended.stderr
    return made


def _environment(folder: Path) -> dict[str, str]:
    import os

    uri = f"sqlite:///{folder}/mlflow.db"
    return {**os.environ, "PYTHONPATH": str(TESTS.parent), "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def record(folder: Path) -> Record:
    return Record.load(next(path for path in (folder / "runs").iterdir() if (path / "record.json").exists()))


def test_every_form_is_measured_by_what_it_decodes(record: Record) -> None:
    baseline, (exported, quantized) = record.baseline, record.stages
    assert [exported.form, quantized.form] == ["seq2seq", "seq2seq"]
    assert exported.score == pytest.approx(baseline.score, abs=0.03)
    assert exported.agreement > 0.8
    assert exported.macs == pytest.approx(baseline.macs, rel=0.05)
    assert exported.params == pytest.approx(baseline.params, rel=0.03)
    assert quantized.size_bytes < 0.4 * exported.size_bytes
    assert quantized.reports["quantization"]["graphs"].keys() == {  # type: ignore[index, union-attr, call-overload]
        *("encoder_model", "decoder_model", "decoder_with_past_model")
    }
    assert record.verdict == "pass"
    assert [port.name for port in record.interface.outputs] == ["sequences"]


def test_the_report_shows_where_the_bytes_are(record: Record) -> None:
    page = (Path(record.folder) / "report.html").read_text()
    assert "decoder_model: " in page
    assert "ONNX files" in page


def test_the_run_loads_and_generates_and_is_expected_of_later_ones(record: Record) -> None:
    final = record.final
    model = load(Path(record.folder) / final.folder)
    assert isinstance(model, Seq2SeqOnnx)
    assert model.predict(inputs(copies(2, 3)))["sequences"].shape[1] <= model.tokens == 6
    expected = of_run(record)
    assert (expected.form, expected.size_bytes) == ("seq2seq", final.size_bytes)
    assert len(expected.digests["model"]) == 64


def test_a_folder_to_deploy_generates_with_numpy_alone(record: Record, tmp_path: Path) -> None:
    made = package(Path(record.folder), tmp_path / "package")
    given = inputs(copies(5, seed=9))
    np.savez(tmp_path / "in.npz", **{name: given[name].numpy() for name in ("input_ids", "attention_mask")})
    words = [sys.executable, "-c", ALONE, str(made / "predict.py"), str(tmp_path / "in.npz")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    model = load(Path(record.folder) / record.stages[-1].folder)
    assert torch.equal(torch.tensor(json.loads(done.stdout)["sequences"]), model.predict(given)["sequences"])
    content = json.loads((made / "model.json").read_text())
    assert content["max_tokens"] == 6
    assert content["digests"]["model"] == of_run(record).digests["model"]
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=made, capture_output=True, text=True).returncode == 0


def test_a_beam_search_is_not_packaged(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seq2SeqOnnx, "settings", {"num_beams": 4, "max_new_tokens": 6})
    with pytest.raises(ConfigError, match=r"its generation_config has num_beams.*ORTModelForSeq2SeqLM"):
        package(Path(record.folder), tmp_path / "package")


def test_mlflow_has_the_files_and_says_nothing_of_a_flavour(folder: Path, record: Record) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = '1-quantize.optimum'")
    assert {file.path for file in client.list_artifacts(runs[0].info.run_id, "deployed")} >= {
        "deployed/encoder_model.onnx",
        "deployed/weights.data",
    }
    assert not client.search_logged_models([experiment.experiment_id])


def test_a_second_run_computes_nothing_anew(folder: Path) -> None:
    """In another process, where sets and dictionaries of the library come in another order."""
    from pipeline.base.devices import set_seed
    from pipeline.build.build import build
    from pipeline.build.source import load_config

    config, source = load_config(folder / "chain.yaml")
    set_seed(config.seed)
    built = build(config, source)
    torch.set_num_threads(1)
    states = as_json(built, Store(folder / "runs" / "store"))["chain"]
    assert [(entry["state"], entry["why"]) for entry in states] == [("cached", [])] * 3
