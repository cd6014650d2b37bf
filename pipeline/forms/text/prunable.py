"""Which tokenizers can be pruned, and which of their tokens must stay."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import ConfigError
from pipeline.forms.text.segmentation import ALPHABET, BYTE, byte_level, splitter
from pipeline.forms.text.tokenizer import SUBWORDS, WORDS, canonical, pieces_of, unknown_in

SUPPORTED = "a fast tokenizer: WordPiece, WordLevel, BPE or Unigram"


def check_tokenizer(tokenizer: Any) -> str:
    """The canonical JSON of a tokenizer that can be pruned.

    Raises:
        ConfigError: there is none, it is a slow one, it has no token for unknown words or for padding, or the text that
            it was given cannot be told from its pieces.
    """
    text = canonical(tokenizer)
    if text is None:
        problem = "no tokenizer" if tokenizer is None else f"a {type(tokenizer).__name__}, which is no fast tokenizer"
        fix = "Give the Task its `tokenizer`, the one that made the inputs"
        raise ConfigError(f"the task has {problem}", expected=SUPPORTED, fix=fix)
    whole = json.loads(text)
    model = whole["model"]
    if model["type"] not in (*WORDS, *SUBWORDS):
        fix = "Leave prune.vocabulary out; other stages work with any tokenizer"
        raise ConfigError(f"the task's tokenizer is a {model['type']} one", expected=SUPPORTED, fix=fix)
    if model["type"] in WORDS and unknown_in(whole) is None:
        raise ConfigError(f"the tokenizer has no `{model['unk_token']}`", expected="a token for unknown words")
    if model["type"] in SUBWORDS:
        _check_subwords(whole)
    if tokenizer.pad_token_id is None:
        raise ConfigError("the tokenizer has no padding token", expected="one, such as `[PAD]`")
    return text


def _check_subwords(tokenizer: Mapping[str, Any]) -> None:
    """Raise ConfigError where the text that a tokenizer of subwords was given cannot be told from its pieces."""
    model = tokenizer["model"]
    if model.get("dropout"):
        problem = f"the tokenizer drops merges by chance, `dropout` is {model['dropout']}"
        raise ConfigError(problem, expected="one that always cuts a text in the same way", fix="Set it to null")
    if named := [key for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]:
        problem = f"the tokenizer's pieces have a `{named[0]}`"
        raise ConfigError(problem, expected="byte-level ones, or a mark for spaces", fix="Leave prune.vocabulary out")
    splitter(tokenizer["pre_tokenizer"])
    pieces = pieces_of(tokenizer).values()
    if model.get("byte_fallback") and len({piece for piece in pieces if BYTE.fullmatch(piece)}) < 256:
        raise ConfigError("the tokenizer falls back on bytes and lacks some", expected="all of <0x00> to <0xFF>")
    if unknown_in(tokenizer) is None and not byte_level(tokenizer) and not model.get("byte_fallback"):
        problem = f"the {model['type']} tokenizer leaves out what it does not know"
        raise ConfigError(problem, expected="a token for unknown words, or bytes")


def parts_of(tokenizer: Mapping[str, Any]) -> dict[int, set[int]]:
    """Of each token that merges make, the ids of the parts of all these merges; empty without merges."""
    model, parts = tokenizer["model"], dict[int, set[int]]()
    for left, right in model.get("merges", ()):
        ids = (model["vocab"][piece] for piece in (left, right))
        parts.setdefault(model["vocab"][left + right], set()).update(ids)
    return parts


def with_parts(ids: Iterable[int], parts: Mapping[int, set[int]]) -> set[int]:
    """The tokens and all that they are built of, so that every merge towards them is kept."""
    tokens, stack = set[int](), list(ids)
    while stack:
        if (i := stack.pop()) not in tokens:
            tokens.add(i)
            stack += parts.get(i, ())
    return tokens


def always_there(tokenizer: Mapping[str, Any]) -> set[int]:
    """Ids of the pieces without which a text could become unknown, or be cut otherwise: bytes, and the lowest score.

    The score of what is unknown is a little below the lowest of a unigram vocabulary, so that this piece stays. A
    tokenizer of words has none.
    """
    model, pieces = tokenizer["model"], pieces_of(tokenizer)
    ids = set[int]()
    if model["type"] in WORDS:
        return ids
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        ids.add(scores.index(min(scores)))
    if byte_level(tokenizer):
        ids |= {i for i, piece in pieces.items() if piece in ALPHABET}
    if model.get("byte_fallback"):
        ids |= {i for i, piece in pieces.items() if BYTE.fullmatch(piece)}
    return ids
