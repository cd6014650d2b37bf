"""What translating the whole tokenizer's ids gives is, to the id, what the pruned tokenizer gives for the text."""

import copy
import random
from functools import partial
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pipeline.errors import ConfigError, StageError
from pipeline.forms.text.inputs import Text, texts_in
from pipeline.forms.text.prunable import check_tokenizer
from pipeline.forms.text.tokenizer import canonical
from pipeline.forms.text.vocabulary import Vocabulary, ranges, unranged
from tests.texts import SPECIAL, wordlevel, wordpiece

LETTERS = "abcdeé"
RANDOM = random.Random(0)
LAST = ("template", "bert", "sequence")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def word(letters: str = LETTERS) -> str:
    return "".join(RANDOM.choices(letters, k=RANDOM.randint(1, 9)))


def text(words: int = 8) -> str:
    """Words of few letters, so that pieces recur, with upper case, punctuation, a letter unseen, a special token."""
    made = [word() for _ in range(RANDOM.randint(1, words))]
    extras = ["Z", "!", "a-b", "ABC", "[MASK]", "##", "zab", "a" * 25]
    return " ".join(RANDOM.choice(extras) if RANDOM.random() < 0.1 else w for w in made)


TEXTS = [text() for _ in range(300)]
SHORT = [text(3) for _ in range(1000)]


def vocabulary(whole: PreTrainedTokenizerFast, kept: list[int], **fields: Any) -> Vocabulary:
    """The vocabulary of all added and unknown tokens and of `kept`."""
    named = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids", "fixed": False}
    frame = (whole.cls_token_id, whole.sep_token_id)
    given: dict[str, Any] = {"texts": (Text.model_validate(named),), "frame": frame} | fields
    return Vocabulary(
        tokenizer=str(canonical(whole)),
        kept=ranges(sorted({*whole.convert_tokens_to_ids(SPECIAL), *kept})),
        pad=whole.pad_token_id,
        left=whole.padding_side == "left",
        **given,
    )


def part(whole: PreTrainedTokenizerFast, share: float, seed: int) -> list[int]:
    return random.Random(seed).sample(range(len(whole)), int(share * len(whole)))


def opened(text: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text))


def batch(tokenizer: PreTrainedTokenizerFast, texts: list[Any], **settings: Any) -> dict[str, Tensor]:
    made = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=True, **settings)
    return {name: made[name] for name in INPUTS}


def rows(inputs: dict[str, Tensor], name: str) -> list[list[int]]:
    """What stands in an input where the mask is 1, which is a single stretch."""
    masks = inputs["attention_mask"].bool()
    return [row[mask].tolist() for row, mask in zip(inputs[name], masks, strict=True)]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize("make", [wordpiece, wordlevel, *(partial(wordpiece, last=way) for way in LAST)])
def test_the_translation_is_what_the_pruned_tokenizer_gives(make: Any, share: float, pairs: bool, side: str) -> None:
    whole = make(TEXTS[:200], padding_side=side)
    found = vocabulary(whole, part(whole, share, 1))
    pruned = opened(found.pruned)
    given = list(zip(TEXTS, TEXTS[::-1], strict=True)) if pairs else TEXTS
    changed = 0
    for start in range(0, len(given), 50):
        before = batch(whole, given[start : start + 50])
        after = found.translate(before)
        expected = pruned(given[start : start + 50], return_token_type_ids=True)
        assert rows(after, "input_ids") == expected["input_ids"]
        assert rows(after, "token_type_ids") == expected["token_type_ids"]
        outside = after["attention_mask"] == 0
        assert set(after["input_ids"][outside].tolist()) <= {pruned.convert_tokens_to_ids("[PAD]")}
        assert not after["token_type_ids"][outside].any()
        assert bool(after["attention_mask"][:, -1 if side == "left" else 0].all()), "padding on the tokenizer's side"
        changed += rows(after, "input_ids") != rows(before, "input_ids")
    assert changed


def test_a_tokenizer_that_keeps_all_translates_nothing() -> None:
    whole = wordpiece(TEXTS)
    found = vocabulary(whole, list(range(len(whole))))
    given = batch(whole, TEXTS)
    assert found.pruned == canonical(whole)
    assert all(torch.equal(found.translate(given)[name], given[name]) for name in INPUTS)


@pytest.mark.parametrize("length", [9, 10, 14, 15])
@pytest.mark.parametrize("pairs", [False, True])
def test_a_fixed_length_stays_and_is_truncated_as_tokenizers_do(length: int, pairs: bool) -> None:
    whole = wordpiece(SHORT, 400)
    texts = (Text(ids="input_ids", mask="attention_mask", types="token_type_ids"),)
    characters = [i for piece, i in whole.get_vocab().items() if len(piece.removeprefix("##")) == 1]
    found = vocabulary(whole, [*characters, *part(whole, 0.3, 2)], texts=texts)
    pruned = opened(found.pruned)
    pruned.pad_token = "[PAD]"
    given: list[Any] = list(zip(SHORT, SHORT[::-1], strict=True)) if pairs else SHORT
    fits = [len(one) <= length for one in whole(given)["input_ids"]]  # of others the end is lost
    given = [one for one, fit in zip(given, fits, strict=True) if fit]
    how: dict[str, Any] = {"padding": "max_length", "max_length": length, "return_token_type_ids": True}
    before = whole(given, return_tensors="pt", **how)
    after = found.translate({name: before[name] for name in INPUTS})
    expected = pruned(given, truncation="longest_first", **how)
    assert sum(len(one) > length for one in pruned(given)["input_ids"]) > 20, "many must be truncated"
    for name in INPUTS:
        assert after[name].tolist() == expected[name]


def test_a_batch_grows_to_its_longest_text_and_no_further_than_the_limit() -> None:
    whole = wordpiece(["abab abab abab"] * 5)
    found = vocabulary(whole, [whole.convert_tokens_to_ids(piece) for piece in ("a", "##b", "##a")], limit=10)
    given = batch(whole, ["abab", "abab abab"])
    assert given["input_ids"].shape == (2, 4)
    assert rows(found.translate(given), "attention_mask") == [[1] * 6, [1] * 10]
    given = batch(whole, ["abab", "abab abab abab"])
    assert found.translate(given)["input_ids"].shape == (2, 10)
    assert found.translate(given)["input_ids"][1, -1] == 3, "[SEP] stays at the end"


def test_what_comes_out_has_the_types_that_came_in_and_the_input_stays() -> None:
    whole = wordpiece(TEXTS)
    found = vocabulary(whole, part(whole, 0.4, 3))
    given = {name: value.int() for name, value in batch(whole, TEXTS[:20]).items()}
    given["attention_mask"] = given["attention_mask"].bool()
    kept = copy.deepcopy(given)
    made = found.translate(given)
    assert list(made) == list(given)
    assert [value.dtype for value in made.values()] == [torch.int32, torch.bool, torch.int32]
    assert all(torch.equal(given[name], kept[name]) for name in given)


def test_without_a_mask_the_padding_tells_where_a_text_ends() -> None:
    whole = wordpiece(TEXTS)
    masked = vocabulary(whole, part(whole, 0.4, 3))
    bare = masked.model_copy(update={"texts": (Text(ids="input_ids", fixed=False),)})
    given = batch(whole, TEXTS[:20])
    made = bare.translate({"input_ids": given["input_ids"]})["input_ids"]
    assert torch.equal(made, masked.translate(given)["input_ids"])


def test_a_word_whose_beginning_was_truncated_is_cut_from_its_inside() -> None:
    whole = wordpiece(["babab babab"] * 5)
    found = vocabulary(whole, whole.convert_tokens_to_ids(["a", "b", "##b", "##a"]))
    ids = whole.convert_tokens_to_ids(["[CLS]", "##ab", "##ab", "[SEP]"])
    assert whole.unk_token_id not in ids
    made = found.translate({**batch(whole, ["a a"]), "input_ids": torch.tensor([ids])})["input_ids"][0].tolist()
    assert opened(found.pruned).convert_ids_to_tokens(made)[1:-1] == ["##a", "##b"] * 2
    whole.add_tokens(["<s>"])
    found = vocabulary(whole, whole.convert_tokens_to_ids(["a", "b", "##b", "##a", "<s>"]))
    ids[0] = whole.convert_tokens_to_ids("<s>")
    made = found.translate({**batch(whole, ["a a"]), "input_ids": torch.tensor([ids])})["input_ids"][0].tolist()
    assert opened(found.pruned).convert_ids_to_tokens(made)[:-1] == ["<s>", *["##a", "##b"] * 2]


def test_an_id_that_is_none_of_the_tokenizers_is_told() -> None:
    whole = wordpiece(TEXTS)
    found = vocabulary(whole, [])
    given = batch(whole, ["a"])
    with pytest.raises(StageError, match=r"`input_ids` has ids from 2 to 9999; expected 0 to \d+, those of the task's"):
        found.translate({**given, "input_ids": torch.tensor([[2, 9999, 3]])})


def test_it_is_kept_in_a_file(tmp_path: Any) -> None:
    found = vocabulary(wordpiece(TEXTS), [7, 8, 9, 30], limit=64)
    found.save(tmp_path)
    assert Vocabulary.load(tmp_path) == found
    assert found.kept == "0-4,7-9,30"
    assert copy.deepcopy(found) is found


def test_the_canonical_form_does_not_depend_on_the_last_call() -> None:
    whole = wordpiece(TEXTS)
    before = canonical(whole)
    whole(TEXTS[:2], truncation=True, max_length=5, padding="max_length")
    assert canonical(whole) == before
    assert ": " not in str(before)[:200]


@pytest.mark.parametrize("ids", [[0], [0, 1, 2], [3, 5, 6, 9], list(range(0, 40, 2))])
def test_ranges_come_back(ids: list[int]) -> None:
    assert unranged(ranges(ids)) == ids


def test_added_tokens_are_words_of_their_own_and_stay() -> None:
    whole = wordpiece(TEXTS)
    whole.add_tokens(["abc", "##zz"])
    found = vocabulary(whole, [*whole.convert_tokens_to_ids(["abc", "##zz"]), *part(whole, 0.4, 5)])
    given = ["ab abc abcabc ##zz bab", "cab##zzab"]
    assert rows(found.translate(batch(whole, given)), "input_ids") == opened(found.pruned)(given)["input_ids"]


NUMBERS = torch.zeros(2, 4, dtype=torch.long)


def test_inputs_are_found_by_their_names() -> None:
    found = texts_in({f"{name}_{end}": NUMBERS for end in "ab" for name in INPUTS[:2]}, {"input_ids_b": {1: "tokens"}})
    assert [(one.ids, one.mask, one.types, one.fixed) for one in found] == [
        ("input_ids_a", "attention_mask_a", None, True),
        ("input_ids_b", "attention_mask_b", None, False),
    ]
    assert texts_in({"input": NUMBERS}, {}) == (Text(ids="input"),)


@pytest.mark.parametrize(("inputs", "message"), [
    ({"input_ids": NUMBERS, "decoder_input_ids": NUMBERS}, "`decoder_input_ids`; expected a model that reads"),
    ({"input_ids": NUMBERS, "pixels": NUMBERS}, "what cannot be translated: `pixels`"),
    ({"input_ids": NUMBERS.float()}, "what cannot be translated: `input_ids`; expected `input_ids` of shape"),
    ({"left": NUMBERS, "right": NUMBERS}, "what cannot be translated: `left`, `right`"),
])  # fmt: skip
def test_inputs_that_cannot_follow_are_refused(inputs: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        texts_in(inputs, {})


def test_a_tokenizer_that_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(ConfigError, match="the task has no tokenizer; expected a fast tokenizer: WordPiece"):
        check_tokenizer(None)
    with pytest.raises(ConfigError, match="the task has a str, which is no fast tokenizer"):
        check_tokenizer("bert")
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, "[UNK]")))
    with pytest.raises(ConfigError, match=r"the tokenizer has no padding token; expected one, such as `\[PAD\]`"):
        check_tokenizer(bare)
