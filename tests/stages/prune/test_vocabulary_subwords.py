"""Byte pairs and unigrams leave real architectures; what is tied to the embedding loses the same rows, still tied."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer
from torch import Tensor, nn

from pipeline import model as models
from pipeline.base.use import Reference
from pipeline.build.probe import example_inputs
from pipeline.deploy import deploy
from pipeline.errors import StageError
from pipeline.forms.text.inputs import Text
from pipeline.forms.text.positions import positions
from pipeline.forms.text.remapped import tied_to, without_tokens
from pipeline.forms.text.tokenizer import canonical
from pipeline.forms.text.vocabulary import Vocabulary
from pipeline.model import TorchModel
from pipeline.report.package import package
from pipeline.run.roundtrip import save_exactly
from pipeline.runner import run
from pipeline.task import Task
from stages.prune.tokens.embedding import check_positions
from stages.prune.vocabulary import VocabularyPruning
from tests import subwords
from tests.contexts import preview_of, refused
from tests.encoders import OfTexts
from tests.texts import answers_alone, vocabulary_of
from tests.users import chain_of

HERE = Path(__file__)
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BART: dict[str, Any] = {
    **{f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in
       {"layers": 1, "attention_heads": 2, "ffn_dim": 32}.items()},
    "d_model": 16,
    "max_position_embeddings": 64,
}  # fmt: skip


@cache
def tokenizer(kind: str) -> Any:
    """One that knows words which train does not use."""
    given = subwords.reviews_too()
    if kind == "unigram":
        return subwords.unigram(given, 180)
    return subwords.bpe(given, 180) if kind == "bpe" else subwords.byte_level(given, 400, space=True)


class WithHead(nn.Module):
    """A masked language model, of whose first token the vector is classified; its head is kept for later."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.model = hf.BertForMaskedLM(hf.BertConfig(vocab_size=size, pad_token_id=1, **SIZES))
        self.classifier = nn.Linear(16, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(N, L) each -> (N, 2)."""
        hidden = self.model.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.classifier(hidden[:, 0])


def network(name: str) -> nn.Module:
    """What a builder names."""
    size, end = len(tokenizer(KIND[name])) + 3, {"eos_token_id": 2, "pad_token_id": 1}
    if name == "with head":
        return WithHead(size)
    if name == "t5":
        config = hf.T5Config(
            vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=1, **end
        )
        return OfTexts(hf.T5ForSequenceClassification(config))
    if name == "bart":
        made: Any = hf.BartConfig(vocab_size=size, scale_embedding=True, decoder_start_token_id=2, **end, **BART)
        return OfTexts(hf.BartForSequenceClassification(made))
    if name == "gpt2":
        made = hf.GPT2Config(vocab_size=size, n_positions=64, n_embd=16, n_layer=1, n_head=2, **end)
        return OfTexts(hf.GPT2ForSequenceClassification(made))
    kind = {"roberta": "Roberta", "xlm-r": "XLMRoberta"}[name]
    config = getattr(hf, f"{kind}Config")(vocab_size=size, max_position_embeddings=66, **SIZES)
    return OfTexts(getattr(hf, f"{kind}ForSequenceClassification")(config))


KIND = {
    "roberta": "bytes", "gpt2": "bytes", "bart": "bpe", "xlm-r": "unigram", "t5": "unigram", "with head": "bpe",
}  # fmt: skip


def built(task: Task, name: str) -> TorchModel:
    torch.manual_seed(0)
    builder = Reference(use=f"{HERE.name}:network", arguments={"name": name}, folder=HERE.parent)
    return TorchModel.build(builder, example_inputs(task.train), task.axes)


@pytest.mark.parametrize("name", KIND)
def test_outputs_of_train_stay_exact_and_unused_tokens_leave(name: str, context: Any, tmp_path: Path) -> None:
    whole = tokenizer(KIND[name])
    task = subwords.task(whole)
    model = built(task, name)
    stage = VocabularyPruning(characters=False)
    assert list(stage.check([], preview_of(model, tokenizer=whole))) == []
    made = stage.run(model, context(task=task))
    found = vocabulary_of(made)
    used = {i for n in range(len(task.train)) for i in task.train[n][0]["input_ids"].tolist()}
    assert used <= {*found.ids.tolist()}
    if KIND[name] == "unigram":
        scores = dict(json.loads(str(canonical(whole)))["model"]["vocab"])
        must = {*subwords.SPECIAL, min(scores, key=scores.__getitem__)}
        assert {*found.ids.tolist()} == used | {*whole.convert_tokens_to_ids(sorted(must))}
    inputs = next(iter(task.train.loader(96))).inputs
    ((output, before),) = model.predict(inputs).items()
    assert torch.equal(made.predict(inputs)[output], before)
    inner = made.module.get_submodule("inner")
    sizes = {part.num_embeddings for part in inner.modules() if isinstance(part, nn.Embedding)}
    assert len(found.ids) in sizes
    assert len(whole) + 3 not in sizes
    config: Any = inner.get_submodule("model").config
    assert (config.vocab_size, config.eos_token_id if name != "with head" else 2) == (len(found.ids), 2)
    told = context.reports["vocabulary"]
    assert told["tokens"] == {"before": len(whole), "after": len(found.ids)}
    assert told["tokenizer_bytes"]["after"] == len(found.pruned.encode()) < told["tokenizer_bytes"]["before"]
    assert told["unknown_in_validation"]["after"] == told["changed_in_validation"] == 0
    save_exactly(made, tmp_path / "model", HERE.parent)
    assert torch.equal(models.load(tmp_path / "model", HERE.parent).predict(inputs)[output], before)


@pytest.mark.parametrize("name", ["roberta", "xlm-r", "with head"])
def test_the_deployed_file_takes_what_the_pruned_tokenizer_gives(name: str, context: Any, tmp_path: Path) -> None:
    task = subwords.task(tokenizer(KIND[name]), extra=True)
    made = VocabularyPruning(max_unknown=1).run(built(task, name), context(task=task))
    deployed = deploy(made, tmp_path / "model.onnx")
    inputs = next(iter(task.validation.loader(48))).inputs
    ((output, expected),) = made.predict(inputs).items()
    assert torch.allclose(deployed.predict(inputs)[output], expected, atol=1e-5)
    alone = Tokenizer.from_str(vocabulary_of(made).pruned)
    alone.enable_padding(pad_id=1, pad_token="<pad>")
    assert np.allclose(answers_alone(alone, deployed.path), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["bpe", "bytes", "unigram"])
def test_the_most_frequent_stay_with_what_they_are_made_of(kind: str, context: Any) -> None:
    task = subwords.task(tokenizer(kind))
    name = next(name for name, used in KIND.items() if used == kind)
    with pytest.raises(StageError, match=r"`keep` is 1, and \d+ added tokens and pieces of one character") as raised:
        VocabularyPruning(keep=1).run(built(task, name), context(task=task))
    assert ("characters: false" in str(raised.value)) == (kind != "bytes"), "the bytes stay anyway"
    least = int(str(raised.value).split("and ")[1].split()[0])
    found = vocabulary_of(VocabularyPruning(keep=least + 12).run(built(task, name), context(task=task)))
    assert least < len(found.ids) <= least + 12
    assert context.reports["vocabulary"]["unknown_in_validation"]["after"] == 0
    model = json.loads(found.pruned)["model"]
    if kind != "unigram":
        long = {piece for piece in model["vocab"] if len(piece) > 1 and piece not in subwords.SPECIAL}
        assert long == {a + b for a, b in model["merges"]}, "each can be built, and nothing else is"


KEPT = [0, 1, 2, 3, 4, 5, 9, 30, 41]


def kept(kind: str) -> dict[str, Any]:
    """The fields of a vocabulary with a few tokens."""
    texts = (Text(ids="input_ids"),)
    made = Vocabulary(tokenizer=str(canonical(tokenizer(kind))), kept="0-5,9,30,41", texts=texts, pad=1)
    return made.model_dump(mode="json")


def marian() -> hf.MarianMTModel:
    """A translator with a bias of its own for each token."""
    size, marks = len(tokenizer("unigram")) + 3, {"pad_token_id": 1, "eos_token_id": 2, "forced_eos_token_id": 2}
    made: Any = hf.MarianConfig(vocab_size=size, decoder_start_token_id=1, **marks, **BART)
    model = hf.MarianMTModel(made)
    model.generation_config.bad_words_ids = [[30, 31], [30, 9]]
    model.final_logits_bias.copy_(torch.arange(float(size)))
    return model.eval()


def test_a_tied_output_layer_and_its_bias_lose_the_same_rows() -> None:
    torch.manual_seed(0)
    module = marian()
    ids = torch.tensor([[5, 9, 30, 2]])
    before = module(input_ids=ids, decoder_input_ids=ids).logits
    inner: Any = without_tokens(module, "model.shared", kept("unigram")).inner
    new = torch.tensor([[5, 6, 7, 2]])
    assert torch.allclose(inner(input_ids=new, decoder_input_ids=new).logits, before[..., KEPT], atol=1e-6)
    assert inner.get_output_embeddings().weight is inner.get_input_embeddings().weight
    assert len(tied_to(inner, inner.get_input_embeddings().weight)) >= 2
    assert inner.final_logits_bias[0].tolist() == KEPT
    assert inner.get_output_embeddings().out_features == inner.config.vocab_size == len(KEPT)
    assert (inner.config.decoder_start_token_id, inner.config.forced_eos_token_id) == (1, 2)
    assert inner.generation_config.bad_words_ids == [[7, 6]], "words of which a token left are left out"
    assert int(inner.generate(new, max_new_tokens=4, num_beams=1, do_sample=False).max()) < len(KEPT)


def test_the_bias_of_berts_head_stays_that_of_its_decoder() -> None:
    module: Any = WithHead(len(tokenizer("bpe"))).model
    module.cls.predictions.bias.data = torch.arange(float(len(tokenizer("bpe"))))
    inner: Any = without_tokens(module, "bert.embeddings.word_embeddings", kept("bpe")).inner
    head = inner.cls.predictions
    assert head.decoder.bias is head.bias
    assert head.bias.tolist() == KEPT
    assert head.decoder.weight is inner.bert.embeddings.word_embeddings.weight
    assert inner(input_ids=torch.tensor([[5, 6, 8]])).logits.shape == (1, 3, len(KEPT))


def test_models_that_score_tokens_are_refused_before_anything_runs(context: Any) -> None:
    whole = tokenizer("bpe")
    task = subwords.task(whole)
    scorer = OfTexts(hf.BertForMaskedLM(hf.BertConfig(vocab_size=len(whole), pad_token_id=1, **SIZES)))
    model = TorchModel(scorer, example_inputs(task.train), Reference(use="none"), axes=task.axes)
    message = rf"the output `logits` has a score for each of {len(whole)} tokens; expected a model that reads texts and"
    refused(message, VocabularyPruning().check([], preview_of(model, tokenizer=whole)))
    with pytest.raises(StageError, match=message):
        VocabularyPruning().run(model, context(task=task))


def test_a_changed_padding_is_refused_where_positions_count_from_it() -> None:
    whole = tokenizer("bytes")
    model = built(subwords.task(whole), "roberta")
    embeddings: Any = model.module.get_submodule("model.roberta.embeddings")
    assert embeddings.padding_idx == 1
    assert positions(model.module) == 64, "two positions of 66 are those of padding"
    moved = Vocabulary(tokenizer=str(canonical(whole)), kept="1-5", texts=(Text(ids="input_ids"),), pad=1)
    with pytest.raises(StageError, match=r"counts positions from the padding's id, which would change from 1 to 0"):
        check_positions(model.module, moved, StageError)


CHAIN = chain_of(
    "prune.vocabulary, max_unknown: 0.5",
    "distill.logits, student: {use: teacher}, epochs: 1, batch_size: 16",
    "export.onnx",
    model="use: models.py:roberta",
    baseline="train.supervised, epochs: 1, learning_rate: 0.01, batch_size: 16",
)
MODULE = "tests.stages.prune.test_vocabulary_subwords"
FILES = {
    "data.py": f"from {MODULE} import subwords, tokenizer\n\ndef task():\n"
    "    return subwords.task(tokenizer('bytes'), extra=True)\n",
    "models.py": f"from {MODULE} import network\n\ndef roberta():\n    return network('roberta')\n",
}


@pytest.mark.slow
def test_a_chain_counts_and_packages_the_tokenizer_of_byte_pairs(project: Any, tmp_path: Path) -> None:
    record = run(project(CHAIN, **FILES), runs=tmp_path / "runs", track=False)
    first, pruned, _, exported = [record.baseline, *record.stages]
    told: Any = pruned.reports["vocabulary"]
    rows = told["tokens"]["before"] + 3 - told["tokens"]["after"]
    assert first.payload_bytes - pruned.payload_bytes == rows * 16 * 4
    assert told["tokenizer_bytes"] == {"before": first.tokenizer_bytes, "after": exported.tokenizer_bytes}
    made = package(Path(record.folder), tmp_path / "package") / "tokenizer.json"
    assert len(made.read_bytes()) == exported.tokenizer_bytes
    assert Tokenizer.from_file(str(made)).get_vocab_size() == told["tokens"]["after"]
