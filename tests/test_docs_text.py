"""docs/text-classifier.md is true: its file is written and its commands run, on what `hf download` would have fetched.

A stub of `hf` puts a tiny model and tiny sentences, laid out as on the hub, where the tutorial wants the real ones.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from pipeline.tasks.huggingface import tokens
from tests import sets
from tests.test_tutorials import BLOCK, ROOT, run

TUTORIAL = ROOT / "docs" / "text-classifier.md"
BLOCKS = BLOCK.findall(TUTORIAL.read_text())
COMMANDS = [line for language, _, text in BLOCKS if language == "bash" for line in text.splitlines()]
DECIDES = "--set budget.retention.min=0.01 --set budget.size.max=2"  # on noise a gate would end with any code


def hub(folder: Path) -> None:
    """A trained classifier and a dataset as they lie on the hub: the labels of test are hidden."""
    rows = sets.texts(700)
    made = tokens.trained(rows, ["text"], 60, "wordpiece", lowercase=True)
    made.save_pretrained(folder / "distilbert")
    torch.manual_seed(0)
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    config = DistilBertConfig(vocab_size=60, dim=16, n_layers=6, n_heads=2, hidden_dim=32, id2label=names)
    DistilBertForSequenceClassification(config).save_pretrained(folder / "distilbert")
    classes = ClassLabel(names=["negative", "positive"])
    features = Features({"idx": Value("int32"), "sentence": Value("string"), "label": classes})
    for name, part in sets.split(rows, train=500, validation=100, test=100).items():
        labels = [-1] * len(part) if name == "test" else part["label"][:]
        columns = {"idx": part["idx"][:], "sentence": part["text"][:], "label": labels}
        (folder / "sst2" / "data").mkdir(parents=True, exist_ok=True)
        whole = Dataset.from_dict(columns, features=features)
        whole.to_parquet(folder / "sst2" / "data" / f"{name}-00000-of-00001.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a newcomer works, with `shrink` and `hf`."""
    hub(tmp_path / "hub")
    (tmp_path / "bin").mkdir()
    fetch = f'for last; do :; done; cp -r {shlex.quote(str(tmp_path / "hub"))}/"$last" "$last"'
    shrink = f'exec {shlex.quote(sys.executable)} -m pipeline "$@"'
    for name, script in {"hf": fetch, "shrink": shrink}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


@pytest.mark.slow
def test_the_tutorial_can_be_followed_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(folder / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (folder / "classifier.yaml").write_text(next(text for _, title, text in BLOCKS if title))
    for command in COMMANDS:
        run(f"{command} {DECIDES}" if command.startswith("shrink run") else command, folder)
    assert list(folder.glob("runs/*/package/model.onnx"))


def test_the_commands_are_those_that_the_test_knows() -> None:
    assert "sh" not in [language for language, _, _ in BLOCKS]  # which the test of the other tutorials would run
    assert [command.split()[:2] for command in COMMANDS] == [
        *[["hf", "download"]] * 2,
        ["shrink", "plan"],
        *[["shrink", "run"]] * 2,
        ["shrink", "package"],
    ]


def test_what_it_says_beside_is_yaml_that_fits() -> None:
    chain = yaml.safe_load(next(text for _, title, text in BLOCKS if title))
    more = yaml.safe_load(next(text for language, title, text in BLOCKS if language == "yaml" and not title))
    assert {"task", "model", "stages", "budget"} == set(chain)
    assert set(more) == {"baseline"}
    links = re.findall(r"\]\(([^)#]+)\)", TUTORIAL.read_text())
    assert all((ROOT / "docs" / link).exists() for link in links if "://" not in link)


def test_the_stub_lays_the_files_where_the_config_looks(folder: Path) -> None:
    chain = yaml.safe_load(next(text for _, title, text in BLOCKS if title))
    for command in COMMANDS[:2]:
        run(command, folder)
    assert (folder / chain["task"]["data"] / "data").is_dir()
    assert (folder / chain["model"]["name"] / "model.safetensors").is_file()
    assert shutil.which("hf", path=str(folder / "bin")) is not None
