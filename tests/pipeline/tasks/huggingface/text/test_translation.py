"""Translation: what a decoder is fed and scored by, and decoding that is what `generate` does."""

from dataclasses import replace
from pathlib import Path

import pytest
import sacrebleu
import torch
from torch.nn import functional as F

from pipeline.build.probe import example_inputs
from pipeline.errors import ConfigError, StageError
from pipeline.model import TorchModel
from pipeline.tasks.huggingface.huggingface import model, task
from pipeline.tasks.huggingface.rows import DatasetTask
from pipeline.tasks.huggingface.text.translation import Marks, as_target, token_cross_entropy
from stages.kd.generation import beam_search
from tests import sets

LONGEST = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    parts = sets.split(sets.translations(80), train=50, validation=10, test=20)
    return sets.write(tmp_path_factory.mktemp("translations"), **parts)


@pytest.fixture(scope="module")
def found(folder: str) -> DatasetTask:
    return task(data=folder, kind="translation", inputs="low", vocabulary=90, max_target_length=LONGEST)


@pytest.fixture(scope="module")
def translator(found: DatasetTask) -> TorchModel:
    made = model(found, example_inputs(found.train), config=sets.MARIAN).model
    torch.manual_seed(2)
    for name, weight in sorted(made.module.named_parameters()):  # whatever a version draws, and in which order
        if weight.dim() > 1 and "positions" not in name:
            torch.nn.init.normal_(weight, std=0.7)
    made.module.final_logits_bias[0, found.tokenizer.eos_token_id] = 6.0  # type: ignore[index, operator]  # some end early
    return made


def test_the_decoder_reads_the_start_and_what_it_should_give(found: DatasetTask) -> None:
    inputs, labels = found.train[0]
    end, start = found.tokenizer.eos_token_id, found.tokenizer.pad_token_id
    assert labels.tolist()[-1] == end
    assert inputs["decoder_input_ids"].tolist() == [start, *labels.tolist()[:-1]]
    batch = next(iter(found.train.loader(8)))
    there = batch.targets != -100
    assert torch.equal(there.sum(1), torch.tensor([len(found.train[i][1]) for i in range(8)]))
    assert batch.targets.shape == batch.inputs["decoder_input_ids"].shape
    assert batch.inputs["input_ids"].shape == batch.inputs["attention_mask"].shape


def test_the_start_can_be_another_token(folder: str) -> None:
    other = task(data=folder, kind="translation", inputs="low", vocabulary=90, start="<s>")
    assert int(other.train[0][0]["decoder_input_ids"][0]) == other.tokenizer.bos_token_id
    with pytest.raises(ConfigError, match=r"`start` is <x>; expected a token"):
        task(data=folder, kind="translation", inputs="low", vocabulary=90, start="<x>")


def test_the_loss_leaves_out_padding_and_is_smoothed() -> None:
    logits, targets = torch.randn(2, 3, 5), torch.tensor([[1, 4, -100], [2, -100, -100]])
    kept = torch.stack([logits[0, 0], logits[0, 1], logits[1, 0]])
    expected = F.cross_entropy(kept, torch.tensor([1, 4, 2]))
    torch.testing.assert_close(token_cross_entropy(0.0, {"logits": logits}, targets), expected)
    smooth = 0.9 * expected - 0.1 * F.log_softmax(kept, -1).mean()
    torch.testing.assert_close(token_cross_entropy(0.1, {"logits": logits}, targets), smooth)


def test_greedy_decoding_gives_what_generate_gives(found: DatasetTask, translator: TorchModel) -> None:
    batch = next(iter(found.test.loader(20)))
    ours = found.decode(translator.predict, batch.inputs)
    theirs = beam_search(translator.module, batch.inputs, 1, LONGEST)[:, 0]
    end, pad = found.tokenizer.eos_token_id, found.tokenizer.pad_token_id
    lengths = set()
    for a, b in zip(ours.tolist(), theirs.tolist(), strict=True):
        short = a[: a.index(end) + 1] if end in a else a
        assert short == [token for token in b if token >= 0]
        assert set(a[len(short) :]) <= {pad}
        lengths.add(len(short))
    assert len(lengths) > 3


def test_decoding_looks_at_nothing_of_the_references(found: DatasetTask, translator: TorchModel) -> None:
    batch = next(iter(found.test.loader(20)))
    expected = found.decode(translator.predict, batch.inputs)
    blind = {**batch.inputs, "decoder_input_ids": batch.inputs["decoder_input_ids"][:, :2] * 0}
    assert torch.equal(found.decode(translator.predict, blind), expected)


def test_what_a_model_generates_itself_is_taken(found: DatasetTask) -> None:
    ids, batch = torch.tensor([[0, 5, 3]]), next(iter(found.test.loader(1)))
    assert torch.equal(found.decode(lambda _: {"sequences": ids}, batch.inputs), ids)


@pytest.mark.parametrize(("name", "score"), [("chrf", sacrebleu.sentence_chrf), ("bleu", sacrebleu.sentence_bleu)])
def test_the_score_is_sacrebleus_of_the_sentence(folder: str, name: str, score: object) -> None:
    found = task(data=folder, kind="translation", inputs="low", vocabulary=90, score=name)
    batch = next(iter(found.test.loader(6)))
    predictions = batch.targets.masked_fill(batch.targets == -100, found.tokenizer.pad_token_id).roll(1, 0)
    texts = [row["up"] for row in sets.translations(80)["translation"][60:66]]
    scores = found.score(predictions, batch.targets)
    for i in range(6):
        assert float(scores[i]) == pytest.approx(score(texts[i - 1], [texts[i]]).score / 100, abs=1e-6)  # type: ignore[operator]
    some = batch.targets.masked_fill(batch.targets == -100, found.tokenizer.pad_token_id)
    some[::2] = predictions[::2]
    corpus = sacrebleu.corpus_bleu([texts[i - 1] if i % 2 == 0 else texts[i] for i in range(6)], [texts]).score
    assert found.metrics["bleu"](some, batch.targets) == pytest.approx(corpus)


def test_a_generated_sequence_becomes_a_target(found: DatasetTask) -> None:
    assert found.as_target is not None
    start, end = found.tokenizer.pad_token_id, found.tokenizer.eos_token_id
    inputs, labels = found.as_target(found.train[0][0], torch.tensor([start, 7, 8, end, 9, start]))
    assert labels.tolist() == [7, 8, end]
    assert inputs["decoder_input_ids"].tolist() == [start, 7, 8]
    _, cut = found.as_target(found.train[0][0], torch.arange(5, 5 + 2 * LONGEST))
    assert len(cut) == LONGEST
    with pytest.raises(StageError, match=r"a generated sequence is empty"):
        found.as_target(found.train[0][0], torch.tensor([start]))


def test_where_the_start_is_the_end_padding_is_no_target() -> None:
    marks = Marks(start=2, end=2, pad=1, longest=8)
    assert as_target(marks, {}, torch.tensor([2, 5, 2, 1, 1]))[1].tolist() == [5, 2]
    with pytest.raises(StageError, match=r"a generated sequence is empty"):
        as_target(marks, {}, torch.tensor([2, 1, 1]))


def test_a_model_that_begins_otherwise_is_refused(found: DatasetTask) -> None:
    example = example_inputs(found.train)
    with pytest.raises(ConfigError, match=r"begins with token 2, the task's with 0\. Set `start: <s>` in the task"):
        model(found, example, config={**sets.MARIAN, "decoder_start_token_id": 2})
    small = replace(found, tokenizer=found.tokenizer)
    with pytest.raises(ConfigError, match=r"the tokenizer has \d+ tokens and the model 40"):
        model(small, example, config={**sets.MARIAN, "vocab_size": 40})


def test_which_way_it_goes_must_be_said(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Set `inputs`, the column of what is translated, and `target`"):
        task(data=folder, vocabulary=90)
