"""Each kind of task from parquet folders to an ONNX file, without a line of Python by the user."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset

from pipeline.build.build import build
from pipeline.build.source import load_config
from pipeline.cli.init.values import Target
from pipeline.cli.init.write import starting_config
from pipeline.errors import ConfigError
from pipeline.runner import run
from tests import sets

VIT = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VIT |= {"intermediate_size": 16, "patch_size": 4}
SPECTROGRAM = {**VIT, "model_type": "audio-spectrogram-transformer", "patch_size": 16}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
SOUND = {"sampling_rate": 8000, "seconds": 0.5}

KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "text_classification": (sets.texts, {"vocabulary": 60, "metrics": ["f1"]}, sets.BERT),
    "text_regression": (sets.pairs, {"kind": "text_regression", "vocabulary": 60, "range": [0, 5]}, sets.BERT),
    "similarity": (sets.pairs, {"kind": "similarity", "vocabulary": 60, "range": [0, 5]}, sets.BERT),
    "translation": (
        sets.translations,
        {"kind": "translation", "inputs": "low", "vocabulary": 90, "max_target_length": 12},
        sets.MARIAN,
    ),
    "image_classification": (sets.images, {"image_size": 16}, VIT),
    "resnet": (sets.images, {"image_size": 16, "color": "grey"}, RESNET),
    "audio_classification": (sets.recordings, {**SOUND, "layout": "frames"}, SPECTROGRAM),
}
BASELINE: list[Any] = [{"use": "train.supervised", "epochs": 1, "batch_size": 16}]


def chain(folder: Path, kind: str, stages: list[Any]) -> Path:
    rows, arguments, config = KINDS[kind]
    data = sets.write(folder / "data", **sets.split(rows(100), train=80, test=20))
    written = {"task": {"use": "huggingface", "data": data, "streaming": True, **arguments}}
    written |= {"model": {"use": "huggingface", "config": config}, "baseline": BASELINE, "stages": stages}
    (folder / "chain.yaml").write_text(yaml.safe_dump(written))
    return folder / "chain.yaml"


@pytest.mark.parametrize("kind", KINDS)
def test_task_and_model_of_every_kind_fit(kind: str, tmp_path: Path) -> None:
    built = build(*load_config(chain(tmp_path, kind, [{"use": "export.onnx"}])))
    assert {name: len(split) for name, split in built.task.splits.items()} == {
        "train": 72,
        "calibration": 72,
        "validation": 8,
        "test": 20,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_trained_exported_and_scored(kind: str, tmp_path: Path) -> None:
    record = run(chain(tmp_path, kind, [{"use": "export.onnx"}]), runs=tmp_path / "runs", track=False)
    (stage,) = record.stages
    assert stage.form == "onnx"
    assert (Path(record.folder) / stage.file).is_file()
    assert (stage.test_samples, stage.score) == (20, pytest.approx(record.baseline.score, abs=0.06))


@pytest.mark.slow
def test_the_command_line_runs_a_chain_that_a_limit_makes_small(tmp_path: Path) -> None:
    stages = [
        {"use": "distill.logits", "student": {"shrink_of": "teacher", "intermediate_size": 8}, "epochs": 1},
        {"use": "export.onnx"},
        {"use": "quantize.dynamic"},
    ]
    file = chain(tmp_path, "text_classification", stages)
    command = [sys.executable, "-m", "pipeline", "run", str(file), "--set", "task.limit=40", "--json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command += ["--runs", str(tmp_path / "runs")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert {name: part["examples"] for name, part in record["data"].items()} == {
        "train": 36,
        "calibration": 36,
        "validation": 4,
        "test": 20,
    }
    assert [stage["form"] for stage in record["stages"]] == ["torch", "onnx", "onnx"]
    sizes = [stage["size_bytes"] for stage in record["stages"]]
    assert record["baseline"]["size_bytes"] > sizes[0] > sizes[2]
    assert "Generating" not in done.stderr


def test_a_limit_reaches_a_stream_before_it_is_read(tmp_path: Path, offline: Path) -> None:
    before = set(offline.glob("shrinkline/stream-*.arrow"))
    build(*load_config(chain(tmp_path, "text_classification", [{"use": "export.onnx"}]), ["limit=15"]))
    made = set(offline.glob("shrinkline/stream-*.arrow")) - before
    assert [Dataset.from_file(str(file)).num_rows for file in made] == [15, 15]


@pytest.mark.optimum
@pytest.mark.parametrize(("target", "stages"), [
    ("cpu", ["distill.sequence", "export.seq2seq", "quantize.optimum", "benchmark.latency"]),
    ("edge", ["distill.sequence", "export.seq2seq", "quantize.optimum"]),
    ("gpu", ["distill.sequence", "export.seq2seq"]),
])  # fmt: skip
def test_a_config_of_an_encoder_decoder_suits_the_target(target: Target, stages: list[str], tmp_path: Path) -> None:
    given = yaml.safe_load(chain(tmp_path, "translation", []).read_text())
    model = {**given["model"], "config": {**sets.MARIAN, "encoder_layers": 2, "decoder_layers": 2}}
    text = starting_config(model, given["task"], target, tmp_path)
    assert [stage["use"] for stage in yaml.safe_load(text)["stages"]] == stages


@pytest.mark.parametrize(("path", "value", "message"), [
    (("task", "limit"), 0, r"limit: `limit` is 0; expected greater than 0"),
    (("model", "config"), "bert", r"`config` is 'bert'; expected a mapping such as"),
])  # fmt: skip
def test_a_wrong_value_is_named_by_its_key(path: tuple[str, str], value: Any, message: str, tmp_path: Path) -> None:
    file = chain(tmp_path, "text_classification", [{"use": "export.onnx"}])
    given = yaml.safe_load(file.read_text())
    given[path[0]][path[1]] = value
    file.write_text(yaml.safe_dump(given))
    with pytest.raises(ConfigError, match=message):
        build(*load_config(file))
