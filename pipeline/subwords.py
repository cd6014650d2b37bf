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
from pipeline.tokenizer import added_in, pieces_of, unknown_in

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
