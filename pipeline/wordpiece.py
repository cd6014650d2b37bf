"""Words cut into the pieces that a pruned tokenizer of words has: WordPiece, or a token a word."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tokenizer import added_in, pieces_of, prefix_of


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
