"""Texts that are longer than a model has positions are refused before anything is trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import nn

from pipeline.build.probe import example_inputs
from pipeline.errors import ConfigError
from pipeline.forms.text.positions import positions
from pipeline.task import Split, Task
from pipeline.tasks.huggingface.huggingface import model, task
from pipeline.tasks.huggingface.models import network
from tests import sets
from tests.forked import shrink

MOST = 24
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BODIES: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": {**SMALL, "pad_token_id": 1},
    "mpnet": SMALL,
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32},
    "electra": {**SMALL, "embedding_size": 16},
    "opt": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32},
}


def words(count: int, length: int) -> Dataset:
    """Different texts of so many words, the last one three times as long."""
    texts = [" ".join(sets.WORDS[(i * k + k) % 16] for k in range(length)) + f" {i}" for i in range(count)]
    texts[-1] = " ".join([texts[-1]] * 3)
    return Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(count)]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sets.write(tmp_path_factory.mktemp("long"), **sets.split(words(40, 10), train=20, validation=10, test=10))


def started(found: Task, **config: Any) -> nn.Module:
    given = {**sets.BERT, "max_position_embeddings": MOST, **config}
    return model(found, example_inputs(found.train), config=given).model.module


@pytest.mark.parametrize("name", BODIES)
def test_a_table_has_as_many_positions_as_work(name: str) -> None:
    config = {"model_type": name, "vocab_size": 60, "max_position_embeddings": MOST, **BODIES[name]}
    module = network("text_classification", config).eval()
    most = positions(module)
    assert most == (MOST - 2 if name in ("roberta", "mpnet") else MOST)
    module(input_ids=torch.full((1, most), 5), attention_mask=torch.ones(1, most).long())
    with pytest.raises((IndexError, RuntimeError)):
        module(input_ids=torch.full((1, most + 1), 5), attention_mask=torch.ones(1, most + 1).long())


@pytest.mark.parametrize("config", [
    {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
    {"model_type": "llama", "num_key_value_heads": 2, **SMALL, "max_position_embeddings": MOST},
    {"model_type": "esm", **SMALL, "pad_token_id": 0, "position_embedding_type": "rotary"},
])  # fmt: skip
def test_relative_and_rotary_positions_have_no_end(config: dict[str, Any]) -> None:
    assert positions(network("text_classification", {**config, "vocab_size": 60})) is None


def test_sides_of_an_encoder_decoder_have_tables_of_their_own() -> None:
    config = {
        "model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 60,
        "max_position_embeddings": MOST,
    }  # fmt: skip
    module = network("translation", config)
    module.model.decoder.embed_positions = nn.Embedding(7, 16)  # type: ignore[union-attr]
    assert [positions(module, decoder=side) for side in (False, True, None)] == [MOST, 7, 7]


def test_the_longest_text_counts_unless_max_length_is_given(folder: str) -> None:
    long = task(data=folder, vocabulary=60)
    assert long.longest["max_length"] > MOST
    seen = long.longest["max_length"]
    told = rf"texts have up to {seen} tokens, and the model has 24 positions\. Set `max_length: 24`"
    with pytest.raises(ConfigError, match=told):
        started(long)
    started(long, max_position_embeddings=seen)
    started(task(data=folder, vocabulary=60, max_length=MOST))
    with pytest.raises(ConfigError, match=r"up to 60 tokens, and the model has 58 positions\. Set `max_length: 58`"):
        started(
            task(data=folder, vocabulary=60, max_length=60), model_type="roberta", pad_token_id=1,
            max_position_embeddings=60,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="up to 128 tokens"):  # as batches are padded
        started(task(data=folder, vocabulary=60, multiple=128), max_position_embeddings=seen)


def test_a_default_that_no_text_needs_is_no_error(tmp_path: Path) -> None:
    data = sets.write(tmp_path / "short", **sets.split(sets.texts(60), train=40, validation=10, test=10))
    found = task(data=data, vocabulary=60)
    assert found.longest["max_length"] < 64  # and the default is 128
    assert positions(started(found, max_position_embeddings=64)) == 64


def test_a_decoder_goes_on_for_as_long_as_it_may(tmp_path: Path) -> None:
    parts = sets.split(sets.translations(60), train=40, validation=10, test=10)
    how = {"data": sets.write(tmp_path / "set", **parts), "kind": "translation", "inputs": "low", "vocabulary": 90}
    found = task(**how)
    with pytest.raises(ConfigError, match=r"translations have up to 128 tokens.*Set `max_target_length: 64`"):
        model(found, example_inputs(found.train), config=sets.MARIAN)
    cut = task(**how, max_target_length=64)
    model(cut, example_inputs(cut.train), config=sets.MARIAN)


def test_a_users_task_is_told_by_its_example(folder: str) -> None:
    ours = task(data=folder, vocabulary=60)
    ids = torch.full((30,), 5)
    split = Split([({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.tensor(i % 2)) for i in range(4)])
    theirs = Task(split, split, split, loss=ours.loss, score=ours.score, tokenizer=ours.tokenizer, labels=ours.labels)
    config = {**sets.BERT, "max_position_embeddings": MOST}
    with pytest.raises(ConfigError, match=r"up to 30 tokens, .* 24 positions\. Let the task cut its texts"):
        model(theirs, example_inputs(split), config=config, kind="text_classification")
    short = replace(theirs, train=Split([({"input_ids": ids[:9], "attention_mask": ids[:9]}, torch.tensor(0))] * 4))
    model(short, example_inputs(short.train), config=config, kind="text_classification")


def test_the_command_says_it_in_one_line_before_anything_is_trained(folder: str, tmp_path: Path) -> None:
    text = (
        f"task: {{use: huggingface, data: {folder}, vocabulary: 60, inputs: text, target: label}}\n"
        f"model: {{use: huggingface, config: {{**}}}}\n"
        "baseline: [{use: train.supervised, epochs: 1}]\nstages: [{use: export.onnx}]\n"
    )
    config = ", ".join(f"{key}: {value}" for key, value in {**sets.BERT, "max_position_embeddings": MOST}.items())
    (tmp_path / "my.yaml").write_text(text.replace("**", config))
    done = shrink("run", "my.yaml", cwd=tmp_path, HF_DATASETS_CACHE=str(tmp_path / "hub"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("shrink: my.yaml:2: model (huggingface): the task's texts have up to ")
    assert line.endswith("the model has 24 positions. Set `max_length: 24` in the task; what is longer is then cut.")
