"""Words and texts cut into the pieces that a pruned tokenizer has.

Words, of WordPiece, show in their pieces. Where those of subwords, byte pairs (BPE) or unigrams (SentencePiece), end
does not: there what stands between two added tokens is put together again. The pruned tokenizer's own model cuts it.

References: Xinying Song et al., "Fast WordPiece Tokenization", 2020, arXiv:2012.15524, section 2; Rico Sennrich, Barry
Haddow and Alexandra Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016, arXiv:1508.07909,
algorithm 1; Taku Kudo, "Subword Regularization", 2018, arXiv:1804.10959, section 3.2.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.forms.text.tokenizer import WORDS, added_in, pieces_of, prefix_of, unknown_in

NO_TEXT = "\uffff"
"""Stands where a token was unknown: a noncharacter, which no vocabulary has."""
LONGEST = 2**31  # characters of a word: as long as the whole tokenizer allows
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


class Cutter:
    """Cuts anew, as the pruned tokenizer does, what has lost a piece: a word, or of subwords a text.

    Args:
        whole, pruned: the two tokenizers' JSON.
        size: ids of the whole one.
    """

    def __init__(self, whole: Mapping[str, Any], pruned: Mapping[str, Any], size: int) -> None:
        from tokenizers import Tokenizer

        self.pieces, self.unknown, self.prefix = pieces_of(whole), unknown_in(whole), prefix_of(whole)
        words = whole["model"]["type"] in WORDS
        self.bytes = not words and byte_level(whole)
        self.falls_back = bool(whole["model"].get("byte_fallback"))
        alone = [i for i in added_in(whole) if i != self.unknown or self.bytes or words]
        inside = [i for i, piece in self.pieces.items() if not words or (self.prefix and piece.startswith(self.prefix))]
        self.alone: NDArray[np.bool_] = np.isin(np.arange(size), alone)
        """(size,) which ids are of added tokens; what is unknown to subwords belongs to the text around it."""
        self.continues: NDArray[np.bool_] = np.isin(np.arange(size), inside) & ~self.alone
        """(size,) which ids go on with what the one before has begun."""
        bare: dict[str, Any] = {"normalizer": None, "post_processor": None, "added_tokens": []}
        bare["pre_tokenizer"] = None if words else splitter(whole["pre_tokenizer"])
        limit = {"max_input_chars_per_word": LONGEST} if whole["model"]["type"] == "WordPiece" else {}
        self.tokenizer = Tokenizer.from_str(json.dumps({**pruned, **bare, "model": {**pruned["model"], **limit}}))

    def cut(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The new ids: unknown where no pieces make it up. Of a character that truncation has cut nothing is left."""
        first, *rest = (NO_TEXT if i == self.unknown else self.pieces[i] for i in ids)
        # Where truncation has taken a word's beginning, the first goes on with it and keeps its prefix.
        text = first + "".join(piece.removeprefix(self.prefix) for piece in rest)
        if self.bytes:
            text = bytes(ALPHABET[character] for character in text).decode(errors="ignore")
        elif self.falls_back:
            text = BYTES.sub(lambda match: bytes.fromhex(BYTE.sub(r"\1", match[0])).decode(errors="ignore"), text)
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)


def splitter(pre_tokenizer: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A pre-tokenizer's JSON that cuts the text of pieces as it cut the texts that they came from.

    Spaces are in the pieces already: none is put before the first word.

    Raises:
        ConfigError: it is one that removes what it cuts at, or is not known to do so.
    """
    if pre_tokenizer is None:
        return None
    *before, last = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
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
