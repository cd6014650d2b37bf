"""docs/text-classifier.md is true: its file is written and its commands run as they stand.

A stub of `hf` puts a small trained model and a few sentences, laid out as on the hub, where the tutorial wants the real
ones. The model is as good on its sentences as the real one, so that the budget can be kept.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from torch import nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from pipeline.tasks.huggingface.text import tokens
from tests import sets
from tests.test_tutorials import BLOCK, ROOT, run

TUTORIAL = ROOT / "docs" / "text-classifier.md"
BLOCKS = BLOCK.findall(TUTORIAL.read_text())
COMMANDS = [line for language, _, text in BLOCKS if language == "bash" for line in text.splitlines()]
IDLE = (1, 2, 4, 5)
"""Layers of the six that leave what they are given; the tutorial's student keeps the other two."""


def hub(folder: Path, epochs: int) -> None:
    """A classifier, trained so long, and a dataset as they lie on the hub: the labels of test are hidden."""
    rows = sets.texts(1100)
    made = tokens.trained(rows, ["text"], 60, "wordpiece", lowercase=True)
    made.save_pretrained(folder / "distilbert")
    parts = sets.split(rows, train=700, validation=300, test=100)
    classifier(parts["train"], made, epochs).save_pretrained(folder / "distilbert")
    classes = ClassLabel(names=["negative", "positive"])
    features = Features({"idx": Value("int32"), "sentence": Value("string"), "label": classes})
    for name, part in parts.items():
        labels = [-1] * len(part) if name == "test" else part["label"][:]
        columns = {"idx": part["idx"][:], "sentence": part["text"][:], "label": labels}
        (folder / "sst2" / "data").mkdir(parents=True, exist_ok=True)
        whole = Dataset.from_dict(columns, features=features)
        whole.to_parquet(folder / "sst2" / "data" / f"{name}-00000-of-00001.parquet")


def classifier(train: Dataset, tokenizer: Any, epochs: int) -> DistilBertForSequenceClassification:
    """One that becomes right about its sentences; most of its layers add nothing to what goes through them."""
    torch.manual_seed(0)
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    config = DistilBertConfig(vocab_size=60, dim=64, n_layers=6, n_heads=2, hidden_dim=128, id2label=names, dropout=0.0)
    model = DistilBertForSequenceClassification(config).train()
    for layer in (model.distilbert.transformer.layer[i] for i in IDLE):
        for last in (layer.attention.out_lin, layer.ffn.lin2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        layer.requires_grad_(False)
    inputs = tokenizer(train["text"][:], padding=True, return_tensors="pt")
    labels = torch.tensor(train["label"][:])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.002)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(32):
            given = {name: inputs[name][batch] for name in ("input_ids", "attention_mask")}
            optimizer.zero_grad()
            model(**given, labels=labels[batch]).loss.backward()
            optimizer.step()
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where a newcomer works, with `shrink` and `hf`; the model is trained where the test is a slow one."""
    hub(tmp_path / "hub", epochs=5 if request.node.get_closest_marker("slow") else 0)
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
        run(command, folder)
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
