"""Tokens that train does not use leave the embedding and the tokenizer, and nothing else changes."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer
from torch import nn

from pipeline import model as models
from pipeline.base.formatting import bytes_text
from pipeline.base.use import Reference
from pipeline.build.probe import example_inputs
from pipeline.deploy import deploy
from pipeline.errors import ConfigError, StageError
from pipeline.forms.text.remapped import Translated, saved_vocabulary
from pipeline.measure.interface import interface
from pipeline.model import OnnxModel, TorchModel
from pipeline.report.package import package
from pipeline.report.terminal import show
from pipeline.run.roundtrip import save_exactly
from pipeline.runner import run
from pipeline.task import Task
from stages.export.onnx import OnnxExport
from stages.prune.channels import ChannelPruning
from stages.prune.vocabulary import VocabularyPruning
from stages.quantize.static import StaticQuantization
from tests import texts
from tests.contexts import preview_of, refused
from tests.texts import answers_alone, vocabulary_of
from tests.users import chain_of

HERE = Path(texts.__file__).parent


def built(task: Task, use: str = "bert", **arguments: Any) -> TorchModel:
    torch.manual_seed(0)
    builder = Reference(use=f"texts.py:{use}", arguments=arguments, folder=HERE)
    return TorchModel.build(builder, example_inputs(task.train), task.axes)


def inputs_of(task: Task, part: str, count: int = 48) -> dict[str, torch.Tensor]:
    return next(iter(getattr(task, part).loader(count))).inputs


@pytest.mark.parametrize("padded", [True, False])
def test_what_train_does_not_use_leaves_and_its_outputs_stay_to_the_bit(padded: bool, context: Any) -> None:
    task = texts.task(padded=padded)
    model = built(task)
    made = VocabularyPruning(characters=False).run(model, context(task=task))
    used = {i for inputs, _ in (task.train[n] for n in range(len(task.train))) for i in inputs["input_ids"].tolist()}
    kept = sorted({*range(5), *used})  # and the added tokens
    assert vocabulary_of(made).ids.tolist() == kept
    inner = made.module.get_submodule("inner")
    before, after = (m.get_submodule("bert.embeddings.word_embeddings") for m in (model.module, inner))
    assert isinstance(after, nn.Embedding)
    assert torch.equal(after.weight, before.get_parameter("weight")[kept])
    assert (after.num_embeddings, after.padding_idx) == (len(kept), 0)
    config: Any = inner.config
    assert (config.vocab_size, config.pad_token_id) == (len(kept), 0)
    inputs = inputs_of(task, "train")
    assert torch.equal(made.predict(inputs)["logits"], model.predict(inputs)["logits"])
    told = context.reports["vocabulary"]
    assert told["tokens"] == {"before": len(texts.tokenizer()), "after": len(kept)}
    assert told["embedding_bytes"] == {"before": (len(texts.tokenizer()) + 3) * 64, "after": len(kept) * 64}
    assert told["unknown_in_validation"] == {"before": 0, "after": 0}
    assert told["changed_in_validation"] == 0
    assert told["tokenizer_bytes"]["after"] < told["tokenizer_bytes"]["before"]


def test_it_comes_back_from_its_folder_to_the_bit_and_leaves_its_input_alone(context: Any, tmp_path: Path) -> None:
    task = texts.task(extra=True)
    model = built(task)
    inputs = inputs_of(task, "validation")
    before = model.predict(inputs)["logits"]
    made = VocabularyPruning(max_unknown=1).run(model, context(task=task))
    assert torch.equal(model.predict(inputs)["logits"], before)
    save_exactly(made, tmp_path / "model", HERE)
    assert torch.equal(models.load(tmp_path / "model", HERE).predict(inputs)["logits"], made.predict(inputs)["logits"])
    assert saved_vocabulary(tmp_path / "model") == vocabulary_of(made)
    assert not torch.equal(made.predict(inputs)["logits"], before), "some words of validation are cut in another way"


@pytest.mark.parametrize("padded", [True, False])
def test_the_deployed_file_takes_what_the_pruned_tokenizer_gives(padded: bool, context: Any, tmp_path: Path) -> None:
    task = texts.task(padded=padded, types=not padded, extra=True)
    made = VocabularyPruning(keep=70, max_unknown=1).run(built(task, "Bag" if padded else "bert"), context(task=task))
    deployed = deploy(made, tmp_path / "model.onnx")
    deployed.save(tmp_path / "saved")
    loaded = models.load(tmp_path / "saved")
    assert isinstance(loaded, OnnxModel)
    assert saved_vocabulary(tmp_path / "saved") == loaded.vocabulary == vocabulary_of(made)
    batch = next(iter(task.validation.loader(48)))
    ((name, expected),) = made.predict(batch.inputs).items()
    for form in (deployed, loaded):
        assert torch.allclose(form.predict(batch.inputs)[name], expected, atol=1e-5)
    alone = Tokenizer.from_str(vocabulary_of(made).pruned)
    alone.enable_padding(length=texts.LENGTH if padded else None)
    alone.enable_truncation(texts.LENGTH if padded else 64)
    assert np.allclose(answers_alone(alone, deployed.path), expected.numpy(), atol=1e-5)
    if not padded:
        wide = {name: nn.functional.pad(value, (0, 60 - value.shape[1])) for name, value in batch.inputs.items()}
        assert torch.allclose(deployed.predict(wide)[name], expected, atol=1e-5)


def test_words_are_cut_into_the_pieces_that_stay_and_the_most_frequent_stay(context: Any) -> None:
    task = texts.task()
    whole = texts.tokenizer()
    must = VocabularyPruning(keep=1, max_unknown=1)
    message = r"`keep` is 1, and \d+ added tokens and pieces of one character stay"
    with pytest.raises(StageError, match=message) as found:
        must.run(built(task), context(task=task))
    least = int(str(found.value).split("and ")[1].split()[0])
    made = VocabularyPruning(keep=least + 4).run(built(task), context(task=task))
    pieces = whole.convert_ids_to_tokens(vocabulary_of(made).ids.tolist())
    letters = {letter for text, _ in texts.reviews(96, 1) for letter in text.replace(" ", "")}
    vocabulary = set(whole.get_vocab())
    assert {*letters, *(f"##{letter}" for letter in letters)} & vocabulary <= set(pieces)
    counts = torch.bincount(inputs_of(task, "train", 96)["input_ids"].flatten(), minlength=len(whole)).tolist()
    chosen = [i for i in vocabulary_of(made).ids.tolist() if len(whole.convert_ids_to_tokens(i).lstrip("#")) > 1]
    words = [i for i in chosen if i >= 5]
    lost = [i for i in range(len(whole)) if i not in vocabulary_of(made).ids and i >= 5]
    assert len(words) == 4
    assert min(counts[i] for i in words) >= max(counts[i] for i in lost)
    told = context.reports["vocabulary"]
    assert told["unknown_in_validation"]["after"] == 0, "all words can be cut into characters"
    assert told["changed_in_validation"] == 1


def test_rare_tokens_leave_by_a_threshold(context: Any) -> None:
    task = texts.task()
    some, most = (VocabularyPruning(min_count=n, characters=False, max_unknown=1) for n in (1, 60))
    sizes = [len(vocabulary_of(stage.run(built(task), context(task=task))).ids) for stage in (some, most)]
    assert 5 < sizes[1] < sizes[0]


def test_too_many_unknown_tokens_in_validation_are_refused_and_told(context: Any) -> None:
    task = texts.task(extra=True)
    message = r"\d+\.\d\d% of the tokens in validation would be unknown, 0.00% were; expected at most max_unknown: 0.01"
    with pytest.raises(StageError, match=message):
        VocabularyPruning(characters=False).run(built(task), context(task=task))
    made = VocabularyPruning(characters=False, max_unknown=0.5).run(built(task), context(task=task))
    ids = vocabulary_of(made).translate(inputs_of(task, "validation"))["input_ids"]
    assert int((ids == vocabulary_of(made).unknown).sum())


def test_where_no_token_leaves_it_fails(context: Any) -> None:
    task = texts.task()
    mask, label = torch.ones(24).long(), torch.tensor(0)
    everything = [torch.arange(24 * i, 24 * i + 24) % 260 for i in range(11)]
    train = replace(task.train, dataset=[({"input_ids": ids, "attention_mask": mask}, label) for ids in everything])
    with pytest.raises(StageError, match="all 260 tokens occur in train or stay anyway; expected tokens to remove"):
        VocabularyPruning().run(built(task), context(task=task, train=train))


def test_a_vocabulary_is_pruned_once(context: Any) -> None:
    task = texts.task()
    made = VocabularyPruning().run(built(task), context(task=task))
    with pytest.raises(StageError, match="the vocabulary was pruned already"):
        VocabularyPruning().run(made, context(task=task))
    preview = preview_of(built(task), tokenizer=task.tokenizer)
    refused("the vocabulary was pruned already", VocabularyPruning().check([VocabularyPruning()], preview))


def test_what_cannot_be_pruned_is_refused_before_anything_runs() -> None:
    task = texts.task()
    model = built(task)
    assert list(VocabularyPruning().check([], preview_of(model, tokenizer=task.tokenizer))) == []
    refused("the task has no tokenizer", VocabularyPruning().check([], preview_of(model)))
    decoder = replace(model, example={**model.example, "decoder_input_ids": model.example["input_ids"]})
    with pytest.raises(ConfigError, match="the model takes `decoder_input_ids`"):
        list(VocabularyPruning().check([], preview_of(decoder, tokenizer=task.tokenizer)))
    with pytest.raises(ConfigError, match="names `tokens`, which is no nn"):
        list(VocabularyPruning(embedding="tokens").check([], preview_of(model, tokenizer=task.tokenizer)))
    seen = preview_of(model, tokenizer=task.tokenizer, augment=lambda inputs, seed, view: inputs)
    assert list(VocabularyPruning().check([], seen)) == [
        "the task augments its training data, and tokens that this brings in are not counted"
    ]


class Scorer(nn.Module):
    """Holds a weight, and is no layer of tokens."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight


class Tied(texts.Bag):
    """Something more of it has as many rows, and where asked the same weight."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.other = Scorer(self.tokens.weight) if tied else nn.Embedding(len(texts.tokenizer()), 16)


@pytest.mark.parametrize(("tied", "message"), [
    (True, "`tokens` is also that of `other`, a Scorer; expected only an nn.Embedding or nn.Linear tied"),
    (False, r"the tokenizer has 260 tokens, and the model's embeddings are `tokens` \(260\), `other` \(260\)"),
])  # fmt: skip
def test_the_embedding_must_be_found_and_its_own(tied: bool, message: str, context: Any) -> None:
    task = texts.task()
    model = TorchModel(Tied(tied), example_inputs(task.train), Reference(use="none"))
    with pytest.raises(StageError, match=message):
        VocabularyPruning().run(model, context(task=task))
    if not tied:
        made = VocabularyPruning(embedding="tokens").run(model, context(task=task))
        assert len(made.module.get_parameter("inner.tokens.weight")) < 260
        assert len(made.module.get_parameter("inner.other.weight")) == 260


def test_a_single_input_goes_by_position(context: Any, tmp_path: Path) -> None:
    task = texts.task(extra=True)
    bare = {
        name: replace(part, dataset=[({"tokens": inputs["input_ids"]}, y) for inputs, y in part.dataset])  # type: ignore[attr-defined]
        for name, part in task.splits.items()
    }
    task = replace(task, **bare)
    made = VocabularyPruning(max_unknown=1).run(built(task, "Words"), context(task=task))
    inputs = inputs_of(task, "validation")
    found = deploy(made, tmp_path / "model.onnx").predict(inputs)["output"]
    assert torch.allclose(found, made.predict(inputs)["output"], atol=1e-6)


def test_channels_leave_a_model_with_fewer_tokens_and_the_file_can_be_calibrated(context: Any, tmp_path: Path) -> None:
    task = texts.task(extra=True)
    ctx = context(task=task)
    model = built(task, "Bag")
    made = VocabularyPruning(max_unknown=1).run(model, ctx)
    fewer = ChannelPruning(params=0.9, round_to=1).run(made, ctx)
    assert isinstance(fewer.module, Translated)
    assert fewer.module.get_parameter("inner.body.0.weight").shape[0] < 32
    save_exactly(fewer, tmp_path / "model", HERE)
    exported = OnnxExport().run(fewer, ctx)
    quantized = StaticQuantization().run(exported, context(task=task))
    inputs = inputs_of(task, "validation")
    assert torch.allclose(exported.predict(inputs)["output"], fewer.predict(inputs)["output"], atol=1e-5)
    assert torch.allclose(quantized.predict(inputs)["output"], fewer.predict(inputs)["output"], atol=0.1)
    ids = next(port for port in interface(quantized, task).inputs if port.name == "input_ids")
    assert ids.high < len(vocabulary_of(made).ids), "the ids that the file takes, not the task's"


CHAIN = chain_of(
    "prune.vocabulary, max_unknown: 0.5",
    "distill.logits, student: {use: teacher}, epochs: 1, batch_size: 16",
    "export.onnx",
    "quantize.dynamic",
    "benchmark.latency, rounds: 1, iterations: 5, warmup: 1",
    model="use: models.py:bert",
    baseline="train.supervised, epochs: 2, learning_rate: 0.01, batch_size: 16",
)
FILES = {
    "data.py": "from tests import texts\n\ndef task():\n    return texts.task(extra=True)\n",
    "models.py": "from tests import texts\n\ndef bert():\n    return texts.bert()\n",
}


@pytest.mark.slow
def test_a_chain_counts_the_tokenizer_beside_the_model_and_packages_it(project: Any, tmp_path: Path) -> None:
    record = run(project(CHAIN, **FILES), runs=tmp_path / "runs", track=False)
    first, pruned, distilled, exported, quantized, timed = [record.baseline, *record.stages]
    told: Any = pruned.reports["vocabulary"]
    rows = told["tokens"]["before"] + 3 - told["tokens"]["after"]
    assert first.payload_bytes - pruned.payload_bytes == rows * 16 * 4
    assert first.size_bytes - pruned.size_bytes == pytest.approx(rows * 16 * 4, abs=16)
    assert first.params - pruned.params == rows * 16
    assert first.macs == pruned.macs
    assert distilled.size_bytes == pruned.size_bytes == exported.size_bytes
    assert quantized.size_bytes < exported.size_bytes
    assert {"before": first.tokenizer_bytes, "after": pruned.tokenizer_bytes} == told["tokenizer_bytes"]
    assert pruned.tokenizer_bytes == exported.tokenizer_bytes == quantized.tokenizer_bytes == timed.tokenizer_bytes
    graph = onnx.load(Path(record.folder) / quantized.file).graph
    assert told["tokens"]["after"] in {size for tensor in graph.initializer for size in tensor.dims}
    made = package(Path(record.folder), tmp_path / "package")
    assert len((made / "tokenizer.json").read_bytes()) == pruned.tokenizer_bytes
    assert len(Tokenizer.from_file(str(made / "tokenizer.json")).get_vocab()) == told["tokens"]["after"]
    assert "tokenizer.json" in (made / "SHA256SUMS").read_text()
    assert "tokenizer.json makes the inputs" in (made / "README.md").read_text()
    both = [(found.size_bytes, found.tokenizer_bytes or 0) for found in (timed, first)]
    last, before = (f"{bytes_text(a)} + {bytes_text(b)} = {bytes_text(a + b)}" for a, b in both)
    told_so = f"Model and tokenizer: {last}, the baseline's {before}"
    console = Console(record=True, width=140, file=StringIO())
    show(record, console)
    assert told_so in console.export_text()
    for page in ("summary.md", "report.html"):
        assert told_so in (Path(record.folder) / page).read_text().replace("&#39;", "'")
    assert len((Path(record.folder) / "tokenizer.json").read_bytes()) == first.tokenizer_bytes
    assert json.loads((Path(record.folder) / quantized.folder / "model.json").read_text())["vocabulary"]


class Marked(texts.Bag):
    """Knows tokens by their numbers."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return super().forward(input_ids, attention_mask) + (input_ids > 200).sum(1, keepdim=True)


def test_numbers_of_tokens_that_a_forward_has_of_its_own_are_noticed(context: Any) -> None:
    task = texts.task()
    model = TorchModel(Marked(), example_inputs(task.train), Reference(use="none"))
    with pytest.raises(StageError, match=r"with fewer tokens `output` has other values .* `ids == 102`"):
        VocabularyPruning(max_unknown=1).run(model, context(task=task))
