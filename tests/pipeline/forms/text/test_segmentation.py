"""Of byte pairs and unigrams, too, a translation is what the pruned tokenizer gives for the text, to the id."""

import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pipeline.errors import ConfigError
from pipeline.forms.text.inputs import Text
from pipeline.forms.text.prunable import check_tokenizer, with_parts
from pipeline.forms.text.segmentation import ALPHABET
from pipeline.forms.text.tokenizer import added_in, canonical
from pipeline.forms.text.vocabulary import Vocabulary, ranges
from tests.subwords import SPECIAL, bpe, by_regex, byte_level, falling_back, unigram

RANDOM = random.Random(0)
WORDS = ["".join(RANDOM.choices("abcdeé", k=RANDOM.randint(1, 7))) for _ in range(60)]
ODD = ["Z", "!", "a-b", "it's", "123", "  ", "<mask>", "日本", "🙂", "\n", "ab!?", "e\u0301"]


def text() -> str:
    """Words of few letters that recur, with what the tokenizers have not seen, with and without spaces between."""
    words = [RANDOM.choice(ODD if RANDOM.random() < 0.15 else WORDS) for _ in range(RANDOM.randint(1, 9))]
    return RANDOM.choice([" ", " ", " ", ""]).join(words)


TEXTS = [text() for _ in range(300)]
PLAIN = [" ".join(RANDOM.choices(WORDS, k=8)) for _ in range(200)]

KINDS: dict[str, Callable[..., PreTrainedTokenizerFast]] = {
    "t5": unigram,
    "xlm-r": partial(unigram, way=pre_tokenizers.WhitespaceSplit()),
    "unigram with bytes": partial(falling_back, "unigram"),
    "bpe": bpe,
    "bpe across words": partial(bpe, split=False),
    "bpe with bytes": partial(falling_back, "bpe"),
    "gpt-2": byte_level,
    "roberta": partial(byte_level, space=True),
    "split": partial(byte_level, way=by_regex()),
    "digits": partial(byte_level, way=pre_tokenizers.Digits(True)),
}


def vocabulary(whole: PreTrainedTokenizerFast, ids: list[int]) -> Vocabulary:
    """With added tokens, bytes, and `ids` with what they are made of."""
    named = Text(ids="input_ids", mask="attention_mask", fixed=False)
    every = ranges(sorted(whole.get_vocab().values()))
    fields: dict[str, Any] = {"texts": (named,), "pad": whole.pad_token_id, "frame": (0, 2)}
    found = Vocabulary(tokenizer=check_tokenizer(whole), kept=every, left=whole.padding_side == "left", **fields)
    return found.keeping(with_parts({*added_in(found.content), *found.needed, *ids}, found.parts), None)


def opened(text: str) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text))


def batch(whole: PreTrainedTokenizerFast, given: Any) -> dict[str, Tensor]:
    made = whole(given, padding=True, return_tensors="pt")
    return {name: made[name] for name in ("input_ids", "attention_mask")}


def rows(inputs: dict[str, Tensor]) -> list[list[int]]:
    pairs = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
    return [row[mask].tolist() for row, mask in pairs]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("share", [0.1, 0.6])
@pytest.mark.parametrize("kind", KINDS)
def test_the_translation_is_what_the_pruned_tokenizer_gives(kind: str, share: float, side: str) -> None:
    whole = KINDS[kind](PLAIN, padding_side=side)
    found = vocabulary(whole, random.Random(1).sample(range(len(whole)), int(share * len(whole))))
    assert len(found.ids) < len(whole)
    pruned, changed = opened(found.pruned), 0
    for given in (TEXTS, list(zip(TEXTS, TEXTS[::-1], strict=True))):
        before = batch(whole, given)
        after = found.translate(before)
        assert rows(after) == pruned(given)["input_ids"]
        changed += rows(after) != rows(before)
    assert changed == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_whose_tokens_all_stay_is_cut_as_before(kind: str) -> None:
    whole = KINDS[kind](PLAIN)
    used = {i for ids in whole(TEXTS[:40])["input_ids"] for i in ids}
    found = vocabulary(whole, sorted(used))
    pruned = opened(found.pruned)
    assert len(found.ids) < len(whole)
    stay = [each for each in TEXTS if {*whole(each)["input_ids"]} <= used]
    assert len(stay) >= 40
    tokens = [whole.convert_ids_to_tokens(ids) for ids in whole(stay)["input_ids"]]
    assert [pruned.convert_ids_to_tokens(ids) for ids in pruned(stay)["input_ids"]] == tokens
    assert rows(found.translate(batch(whole, stay))) == pruned(stay)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_keeps_all_stays_as_it_is(kind: str) -> None:
    whole = KINDS[kind](PLAIN)
    found = vocabulary(whole, sorted(whole.get_vocab().values()))
    given = batch(whole, TEXTS)
    assert found.pruned == canonical(whole)
    assert torch.equal(found.translate(given)["input_ids"], given["input_ids"])


@pytest.mark.parametrize("kind", ["gpt-2", "roberta", "split", "digits", "unigram with bytes", "bpe with bytes"])
def test_with_bytes_nothing_becomes_unknown_and_texts_come_back(kind: str) -> None:
    pruned = vocabulary(KINDS[kind](PLAIN), []).pruned
    ids = opened(pruned)(TEXTS)["input_ids"]
    unknown = Tokenizer.from_str(pruned).token_to_id("<unk>")
    assert all(unknown not in row for row in ids)
    if "bytes" not in kind:
        letters = ["".join(opened(pruned).convert_ids_to_tokens(row)[1:-1]) for row in ids]
        known = [row for row, given in zip(letters, TEXTS, strict=True) if "<mask>" not in given]
        given = [each for each in TEXTS if "<mask>" not in each]
        back = [bytes(ALPHABET[letter] for letter in row).decode() for row in known]
        assert [each.removeprefix(" ") for each in back] == [each.removeprefix(" ") for each in given]


def test_merges_stay_whose_parts_and_result_do_in_their_order() -> None:
    vocab = {name: i for i, name in enumerate([*SPECIAL, "▁", "a", "b", "c", "ab", "bc", "abc", "▁abc", "ca"])}
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("▁", "abc"), ("c", "a")]
    made = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens(SPECIAL)
    whole = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>")
    model = json.loads(vocabulary(whole, [vocab["▁abc"]]).pruned)["model"]
    assert [*model["vocab"]] == [*SPECIAL, "▁", "a", "b", "c", "ab", "bc", "abc", "▁abc"]
    assert model["merges"] == [list(pair) for pair in merges[:-1]], "all ways to build it"
    assert [*json.loads(vocabulary(whole, [vocab["ca"]]).pruned)["model"]["merges"]] == [["c", "a"]]


def test_the_lowest_score_stays_so_that_the_unknown_keeps_its_own() -> None:
    pieces = [(name, 0.0) for name in SPECIAL] + [("▁", -1.0), ("ab", -24.0), ("b", -9.0), ("zzz", -10.0)]
    made = Tokenizer(models.Unigram([*pieces, ("q", -30.0)], SPECIAL.index("<unk>")))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens(SPECIAL)
    whole = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>")
    found = vocabulary(whole, [whole.convert_tokens_to_ids(piece) for piece in ("▁", "ab", "b")])
    assert [piece for piece, _ in json.loads(found.pruned)["model"]["vocab"]] == [*SPECIAL, "▁", "ab", "b", "q"]
    assert opened(found.pruned).tokenize("ab") == whole.tokenize("ab") == ["▁", "ab"]


def test_a_character_that_truncation_cut_leaves_nothing() -> None:
    whole = byte_level(PLAIN)
    lost = whole.tokenize(WORDS[0])[-1]
    found = vocabulary(whole, [])
    ids = torch.tensor([whole("x日 " + WORDS[0])["input_ids"][:3] + whole.convert_tokens_to_ids([lost])])
    made = found.translate({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["input_ids"][0].tolist()
    pieces = opened(found.pruned).convert_ids_to_tokens(made)
    assert pieces[:2] == ["<s>", "x"]
    assert "".join(pieces[2:]) == lost


def test_tokenizers_whose_texts_cannot_be_told_from_their_pieces_are_refused() -> None:
    def made(model: Any, way: Any = None) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = way or pre_tokenizers.Metaspace()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")

    vocab = {"<unk>": 0, "<pad>": 1, "a": 2}
    for tokenizer, message in [
        (made(models.BPE(vocab, [], unk_token="<unk>", dropout=0.1)), "drops merges by chance, `dropout` is 0.1"),
        (made(models.BPE(vocab, [], unk_token="<unk>", end_of_word_suffix="</w>")), "have a `end_of_word_suffix`"),
        (made(models.BPE(vocab, [])), "the BPE tokenizer leaves out what it does not know; expected a token for"),
        (made(models.BPE(vocab, [], byte_fallback=True)), "falls back on bytes and lacks some"),
        (made(models.BPE(vocab, [], unk_token="<unk>"), pre_tokenizers.Whitespace()), "cuts texts by Whitespace"),
        (
            made(models.BPE(vocab, []), pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])),
            "cuts texts by Digits, ByteLevel; expected no pre-tokenizer, Metaspace",
        ),
    ]:
        with pytest.raises(ConfigError, match=message):
            check_tokenizer(tokenizer)
