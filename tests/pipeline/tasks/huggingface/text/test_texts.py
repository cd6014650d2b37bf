"""Texts and pairs: the ids that the tokenizer gives, padded to the longest; classes, numbers and cosines as targets."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional as F
from transformers import AutoTokenizer, BertConfig, BertModel

from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.huggingface import task
from pipeline.tasks.huggingface.text import tokens
from pipeline.tasks.huggingface.text.assembly import Pad
from pipeline.tasks.huggingface.text.similarity import SentencePair
from tests import sets

SIZE = 60


@pytest.fixture
def texts(tmp_path: Path) -> str:
    return sets.write(tmp_path / "texts", **sets.split(sets.texts(90), train=60, validation=10, test=20))


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return sets.write(tmp_path / "pairs", **sets.split(sets.pairs(60), train=40, validation=10, test=10))


@pytest.fixture
def tokenizer(texts: str, tmp_path: Path) -> str:
    """A folder with a tokenizer, as that of a model."""
    task(data=texts, vocabulary=SIZE).tokenizer.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_examples_are_what_the_tokenizer_gives(texts: str, tokenizer: str) -> None:
    found, rows = task(data=texts, tokenizer=tokenizer), sets.texts(90)
    assert (found.kind, found.labels) == ("text_classification", ("no", "yes"))
    direct = AutoTokenizer.from_pretrained(tokenizer)
    for i in range(20):
        inputs, label = found.test[i]
        expected = direct(rows[70 + i]["text"])
        assert list(inputs) == ["input_ids", "attention_mask"]
        assert inputs["input_ids"].dtype == torch.int64
        assert inputs["input_ids"].tolist() == expected["input_ids"]
        assert inputs["attention_mask"].tolist() == expected["attention_mask"]
        assert label == rows[70 + i]["label"]
        assert found.show(inputs) == rows[70 + i]["text"]
    assert found.tokenizer.get_vocab() == direct.get_vocab()
    assert found.train.fingerprint == tokens.digest(direct)


@pytest.mark.parametrize(("multiple", "width"), [(1, 11), (4, 12), (16, 14)])
def test_a_batch_is_padded_to_its_longest_and_not_beyond_the_limit(multiple: int, width: int) -> None:
    axes = {"input_ids": {1: "tokens"}, "attention_mask": {1: "tokens"}}
    pad = Pad({"input_ids": 7, "attention_mask": 0}, axes, multiple, longest=14)
    rows = [({"input_ids": torch.ones(n).long(), "attention_mask": torch.ones(n).long()}, n) for n in (3, 11)]
    inputs, targets = pad(rows)
    assert inputs["input_ids"].tolist() == [[1] * n + [7] * (width - n) for n in (3, 11)]
    assert inputs["attention_mask"].tolist() == [[1] * n + [0] * (width - n) for n in (3, 11)]
    assert targets.tolist() == [3, 11]


def test_long_texts_are_cut_and_the_tokenizers_own_limit_holds(texts: str, tokenizer: str, tmp_path: Path) -> None:
    found = task(data=texts, tokenizer=tokenizer, max_length=5)
    assert max([len(found.train[i][0]["input_ids"]) for i in range(60)]) == 5
    direct = AutoTokenizer.from_pretrained(tokenizer)
    direct.model_max_length = 32
    direct.save_pretrained(tmp_path / "short")
    with pytest.raises(ConfigError, match=r"`max_length` is 128; expected at most 32"):
        task(data=texts, tokenizer=str(tmp_path / "short"))


def test_pairs_have_types_and_single_texts_have_none_unless_asked(pairs: str, texts: str) -> None:
    found = task(data=pairs, kind="text_regression", vocabulary=SIZE)
    inputs, _ = found.train[0]
    end = found.tokenizer.sep_token_id
    first = inputs["input_ids"].tolist().index(end) + 1
    assert inputs["token_type_ids"].tolist() == [0] * first + [1] * (len(inputs["input_ids"]) - first)
    assert set(found.axes) == {"input_ids", "attention_mask", "token_type_ids"}
    off = task(data=pairs, kind="text_regression", vocabulary=SIZE, token_types=False)
    assert set(off.train[0][0]) == set(off.axes) == {"input_ids", "attention_mask"}
    bpe = task(data=pairs, kind="text_regression", vocabulary=SIZE, algorithm="bpe")
    assert "token_type_ids" not in bpe.train[0][0]
    assert set(task(data=texts, vocabulary=SIZE, token_types=True).train[0][0]["token_type_ids"].tolist()) == {0}


def test_numbers_are_learned_as_0_to_1_and_scored_by_the_squared_error(pairs: str) -> None:
    found, rows = task(data=pairs, kind="text_regression", vocabulary=SIZE, range=[0, 5]), sets.pairs(60)
    batch = next(iter(found.test.loader(10)))
    expected = torch.tensor(rows["score"][50:]) / 5
    torch.testing.assert_close(batch.targets, expected)
    assert batch.targets.dtype == torch.float32
    outputs = {"logits": torch.linspace(0, 1, 10)[:, None]}
    predictions = found.decode(lambda _: outputs, batch.inputs)
    torch.testing.assert_close(found.score(predictions, batch.targets), -((outputs["logits"][:, 0] - expected) ** 2))
    torch.testing.assert_close(found.loss(outputs, batch.targets), -found.score(predictions, batch.targets).mean())
    spearman = found.metrics["spearman"](predictions, batch.targets)
    assert spearman == pytest.approx(spearmanr(predictions, expected).statistic)
    assert set(found.metrics) == {"spearman", "pearson"}
    with pytest.raises(ConfigError, match=r"one number an example"):
        found.decode(lambda _: {"logits": torch.zeros(10, 2)}, batch.inputs)


def test_a_metric_beside_the_accuracy(texts: str) -> None:
    found = task(data=texts, vocabulary=SIZE, metrics=["f1", "matthews"])
    logits, labels = torch.eye(2)[[0, 1, 1, 1]], torch.tensor([0, 1, 0, 1])
    assert found.metrics["f1"](logits, labels) == pytest.approx(4 / 5)  # of the class 1: two right of three and of two
    assert found.metrics["matthews"](logits, labels) == pytest.approx(1 / 3**0.5)


def test_similarity_feeds_each_sentence_by_itself(pairs: str) -> None:
    found, rows = task(data=pairs, kind="similarity", vocabulary=SIZE, range=[0, 5]), sets.pairs(60)
    inputs, target = found.test[0]
    for side, column in (("a", "sentence1"), ("b", "sentence2")):
        assert inputs[f"input_ids_{side}"].tolist() == found.tokenizer(rows[50][column])["input_ids"]
    assert float(target) == pytest.approx(rows[50]["score"] / 5)
    batch = next(iter(found.test.loader(10)))
    assert len({value.shape for value in batch.inputs.values()}) == 1  # one length for both
    with pytest.raises(ConfigError, match=r"expected -1 to 1, as a cosine is\. Set `range`"):
        task(data=pairs, kind="similarity", vocabulary=SIZE)


def test_a_sentence_pairs_output_is_the_cosine_of_the_means_of_the_tokens_that_are_there() -> None:
    torch.manual_seed(0)
    encoder = BertModel(BertConfig(**{k: v for k, v in sets.BERT.items() if k != "model_type"}, vocab_size=SIZE)).eval()
    model, ids = SentencePair(encoder), torch.randint(5, SIZE, (4, 9))
    lengths = {"a": [9, 3, 5, 2], "b": [4, 9, 2, 8]}
    masks = {side: (torch.arange(9) < torch.tensor(n)[:, None]).long() for side, n in lengths.items()}
    with torch.no_grad():
        found = model(ids, masks["a"], ids.flip(0), masks["b"])["similarity"]
        for i in range(4):
            means = [
                encoder(row[None, : lengths[side][i]]).last_hidden_state[0].mean(0)
                for side, row in (("a", ids[i]), ("b", ids.flip(0)[i]))
            ]
            torch.testing.assert_close(found[i], F.cosine_similarity(*means, dim=0), atol=1e-5, rtol=1e-5)


TRAIN = """
from pipeline.tasks.huggingface.text.tokens import _train
from tests.sets import sentences
texts = [_train(iter([sentences(300)]), 70, algorithm, True).to_str() for algorithm in ("bpe", "wordpiece")]
"""


def test_a_made_tokenizer_is_the_same_in_every_process() -> None:
    here: dict[str, list[str]] = {}
    exec(TRAIN, here)  # noqa: S102
    ended = subprocess.run([sys.executable, "-c", f"{TRAIN}\nprint(*texts, sep='\\n')"], capture_output=True, text=True)
    assert ended.stdout.splitlines() == here["texts"], ended.stderr


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece"])
def test_a_made_tokenizer_keeps_to_its_size_and_gives_the_text_back(algorithm: Any, offline: Path) -> None:
    rows = sets.texts(100)
    made = tokens.trained(rows, ["text"], 70, algorithm, lowercase=True)
    assert len(made) <= 70
    ids = made(rows["text"][0].upper())["input_ids"]
    assert made.unk_token_id not in ids
    assert made.decode(ids, skip_special_tokens=True) == rows["text"][0]
    assert made.unk_token_id in made("x\u00e9\u00e9y")["input_ids"] or algorithm == "bpe"
    assert tokens.digest(tokens.trained(rows, ["text"], 70, algorithm, lowercase=True)) == tokens.digest(made)


def test_every_word_of_known_characters_has_pieces() -> None:
    made = tokens.trained(sets.texts(100), ["text"], 60, "wordpiece", lowercase=True)
    letters = sorted({letter for text in sets.texts(100)["text"] for letter in text} - {" "})
    assert made.unk_token_id not in made("".join(reversed(letters)))["input_ids"]


def test_tokenizers_that_cannot_be_are_refused(texts: str, tokenizer: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer .*nowhere: it cannot be read"):
        task(data=texts, tokenizer=str(tmp_path / "nowhere"))
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 60)))
    many = sets.write(tmp_path / "many", train=sets.Dataset.from_dict({"text": [*letters], "label": [0, 1] * 30}))
    with pytest.raises(ConfigError, match=r"`vocabulary` is 50; expected at least \d+, for the texts hold \d+ char"):
        task(data=many, vocabulary=50)
    direct = AutoTokenizer.from_pretrained(tokenizer)
    direct.pad_token = None
    direct.save_pretrained(tmp_path / "unpadded")
    with pytest.raises(ConfigError, match=r"it has no token to pad with"):
        task(data=texts, tokenizer=str(tmp_path / "unpadded"))


def test_a_row_without_text_is_refused(tmp_path: Path) -> None:
    rows = sets.Dataset.from_dict({"text": ["one", None] * 20, "label": [0, 1] * 20})
    with pytest.raises(ConfigError, match=r"a row has no text in `text`"):
        task(data=sets.write(tmp_path / "gaps", train=rows), vocabulary=50)
