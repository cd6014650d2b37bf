"""Texts cut into the pieces that a pruned tokenizer of subwords has: byte pairs (BPE) or unigrams (SentencePiece).

Where such a tokenizer's words end does not show in its pieces. So what stands between two added tokens is put together
again, and cut by the pruned tokenizer's own model.

References: Rico Sennrich, Barry Haddow and Alexandra Birch, "Neural Machine Translation of Rare Words with Subword
Units", 2016, arXiv:1508.07909, algorithm 1; Taku Kudo, "Subword Regularization", 2018, arXiv:1804.10959, section 3.2.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.forms.text.tokenizer import SUBWORDS, WORDS, added_in, canonical, pieces_of, prefix_of, unknown_in

NO_TEXT = "\uffff"
"""Stands where a token was unknown: a noncharacter, which no vocabulary has."""
BYTE = re.compile("<0x([0-9A-F]{2})>")
BYTES = re.compile("(?:<0x[0-9A-F]{2}>)+")
"""Pieces that stand for the bytes of a character that is no piece, as SentencePiece writes them."""
PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
ALPHABET = {
    **{chr(byte): byte for byte in PRINTED},
    **{chr(256 + i): byte for i, byte in enumerate(sorted({*range(256)} - {*PRINTED}))},
}
"""The characters that byte-level tokenizers write for bytes, as GPT-2's does."""
SPLITTERS = "no pre-tokenizer, Metaspace, WhitespaceSplit with Metaspace, or ByteLevel, perhaps after Split or Digits"


class Subwords:
    """Cuts what stands between added tokens anew, as the pruned tokenizer does.

    Args:
        whole, pruned: the two tokenizers' JSON.
        size: ids of the whole one.
    """

    def __init__(self, whole: Mapping[str, Any], pruned: Mapping[str, Any], size: int) -> None:
        from tokenizers import Tokenizer

        self.pieces, self.unknown, self.bytes = pieces_of(whole), unknown_in(whole), byte_level(whole)
        self.falls_back = bool(whole["model"].get("byte_fallback"))
        alone = [i for i in added_in(whole) if i != self.unknown or self.bytes]
        self.alone: NDArray[np.bool_] = np.isin(np.arange(size), alone)
        """(size,) which ids are of added tokens; what is unknown belongs to the text around it."""
        self.continues: NDArray[np.bool_] = ~self.alone
        """(size,) which ids go on with what the one before has begun."""
        bare: dict[str, Any] = {"normalizer": None, "post_processor": None, "added_tokens": []}
        bare["pre_tokenizer"] = splitter(whole["pre_tokenizer"])
        self.tokenizer = Tokenizer.from_str(json.dumps({**pruned, **bare}))

    def cut(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The new ids of a text that has lost a piece. Of a character that truncation has cut nothing is left."""
        text = "".join(NO_TEXT if i == self.unknown else self.pieces[i] for i in ids)
        if self.bytes:
            text = bytes(ALPHABET[character] for character in text).decode(errors="ignore")
        elif self.falls_back:
            text = BYTES.sub(lambda match: bytes.fromhex(BYTE.sub(r"\1", match[0])).decode(errors="ignore"), text)
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)


def splitter(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A pre-tokenizer's JSON that cuts the text of pieces as it cut the texts that they came from.

    Spaces are in the pieces already: none is put before the first word.

    Raises:
        ConfigError: it is one that removes what it cuts at, or is not known to do so.
    """
    if found is None:
        return None
    *before, last = found["pretokenizers"] if found["type"] == "Sequence" else [found]
    kinds = [step["type"] for step in before]
    if last["type"] == "Metaspace" and set(kinds) <= {"WhitespaceSplit"}:
        return {**last, "prepend_scheme": "never", "split": last["split"] or bool(before)}
    if last["type"] == "ByteLevel" and set(kinds) <= {"Split", "Digits"}:
        removes = any(step.get("behavior") == "Removed" for step in before)
        spaces = before and last["add_prefix_space"]  # one would be put before each part
        if not removes and not spaces:
            return {"type": "Sequence", "pretokenizers": [*before, {**last, "add_prefix_space": False}]}
    kinds_text = ", ".join([*kinds, last["type"]])
    fix = "Leave prune.vocabulary out; other stages work with any tokenizer"
    raise ConfigError(f"the tokenizer cuts texts by {kinds_text}", expected=SPLITTERS, fix=fix)


def byte_level(tokenizer: Mapping[str, Any]) -> bool:
    """Whether its pieces are written in the alphabet of bytes."""
    pre_tokenizer = tokenizer["pre_tokenizer"] or {"type": None}
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    return any(step["type"] == "ByteLevel" for step in steps)


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

    The score of what is unknown is a little below the lowest of a unigram vocabulary, so that this piece stays.
    """
    model, pieces = tokenizer["model"], pieces_of(tokenizer)
    ids = set[int]()
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        ids.add(scores.index(min(scores)))
    if byte_level(tokenizer):
        ids |= {i for i, piece in pieces.items() if piece in ALPHABET}
    if model.get("byte_fallback"):
        ids |= {i for i, piece in pieces.items() if BYTE.fullmatch(piece)}
    return ids


class WordPieces:
    """Cuts words anew as WordPiece does, the longest piece first; unknown where the pieces do not make it up.

    Args:
        whole, pruned: the two tokenizers' JSON.
        size: ids of the whole one.
    """

    def __init__(self, whole: Mapping[str, Any], pruned: Mapping[str, Any], size: int) -> None:
        self.pieces, self.prefix = pieces_of(whole), prefix_of(whole)
        self.known: dict[str, int] = pruned["model"]["vocab"]
        self.unknown = self.known[pruned["model"]["unk_token"]]
        inside = [i for i, piece in self.pieces.items() if self.prefix and piece.startswith(self.prefix)]
        self.alone: NDArray[np.bool_] = np.isin(np.arange(size), added_in(whole))
        """(size,) which ids are of added tokens."""
        self.continues: NDArray[np.bool_] = np.isin(np.arange(size), inside) & ~self.alone
        """(size,) which ids go on with what the one before has begun."""
        self.seen: dict[tuple[int, ...], tuple[int, ...]] = {}

    def cut(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The new ids of a word that has lost a piece; each word is looked up once."""
        if ids not in self.seen:
            self.seen[ids] = self._cut(ids)
        return self.seen[ids]

    def _cut(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The longest match first.

        Reference: Xinying Song et al., "Fast WordPiece Tokenization", 2020, arXiv:2012.15524, section 2.
        """
        prefix = self.prefix
        if prefix is None:
            return (self.unknown,)
        text = "".join(self.pieces[i].removeprefix(prefix if self.continues[i] else "") for i in ids)
        inside = bool(self.continues[ids[0]])  # truncation has taken the word's beginning
        new_ids, start = list[int](), 0
        while start < len(text):
            head = prefix if start or inside else ""
            ends = range(len(text), start, -1)
            end = next((end for end in ends if head + text[start:end] in self.known), None)
            if end is None:
                return (self.unknown,)
            new_ids.append(self.known[head + text[start:end]])
            start = end
        return tuple(new_ids)


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
