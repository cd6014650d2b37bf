"""A tokenizer without some of its tokens, and the ids of the whole one put into those that it would give.

A task goes on tokenizing as it always did; the inputs of a model that has lost tokens are translated before they reach
it. Whoever deploys the model tokenizes with the pruned tokenizer and needs no translation.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.errors import StageError
from pipeline.forms.text.inputs import Text
from pipeline.forms.text.prunable import always_there, parts_of
from pipeline.forms.text.segmentation import Cutter
from pipeline.forms.text.tokenizer import compact, pieces_of, prune, unknown_in

FILE = "vocabulary.json"

Ids = NDArray[np.int64]
Row = tuple[list[int], list[int]]
"""The ids and the types of one sequence."""


class Vocabulary(BaseModel):
    """The tokens of a tokenizer that are kept, in order, and how inputs that it made are put into what is left.

    What has lost a piece is cut anew: a word as WordPiece does, a text of subwords by the pruned tokenizer's model. It
    becomes unknown where the pieces that are left do not make it up; a word-level one is unknown at once. What comes
    out is what the pruned tokenizer gives for the same text, with these exceptions: a text that was truncated, whose
    end nobody knows any more; what was unknown stays so, though a tokenizer of words without a piece for each character
    alone may now find pieces for it; a word that itself begins with the prefix of continuing pieces, which BERT's
    pre-tokenizer does not let through; and a text that spells the unknown token out.

    Args:
        tokenizer: the whole one, in canonical JSON.
        kept: ids of the whole tokenizer that stay, as ranges: "0-4,17". Their ranks are the new ids.
        texts: the inputs that hold ids.
        pad: the padding's id in the whole tokenizer.
        frame: ids of what stands around texts and is never truncated, such as [CLS] and [SEP].
        left: whether padding stands before the text.
        limit: the longest sequence, where the length is not fixed; None for any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    tokenizer: str
    kept: str
    texts: tuple[Text, ...]
    pad: int
    frame: tuple[int, ...] = ()
    left: bool = False
    limit: int | None = None

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self

    def keeping(self, ids: Iterable[int], limit: int | None) -> "Vocabulary":
        """The same tokenizer with other tokens kept, and another limit."""
        # Not model_copy, which would copy what has been looked up too.
        return Vocabulary.model_validate({**self.model_dump(), "kept": ranges(sorted(ids)), "limit": limit})

    def save(self, directory: Path) -> None:
        """Write vocabulary.json."""
        (directory / FILE).write_text(self.model_dump_json() + "\n")

    @classmethod
    def load(cls, directory: Path) -> "Vocabulary":
        """What `save` wrote."""
        return cls.model_validate_json((directory / FILE).read_text())

    @cached_property
    def content(self) -> dict[str, Any]:
        """The whole tokenizer as its JSON says."""
        return dict(json.loads(self.tokenizer))

    @cached_property
    def ids(self) -> Ids:
        """The ids of the whole tokenizer that are kept, in order."""
        return np.array(unranged(self.kept), dtype=np.int64)

    @cached_property
    def pruned(self) -> str:
        """The pruned tokenizer in canonical JSON, as tokenizer.json holds it."""
        return compact(prune(self.content, {int(old): new for new, old in enumerate(self.ids)}))

    @cached_property
    def new(self) -> Ids:
        """(tokens of the whole tokenizer,) the new id of each, -1 where it is not kept."""
        table = np.full(max(self.pieces) + 1, -1, dtype=np.int64)
        table[self.ids] = np.arange(len(self.ids))
        return table

    @cached_property
    def pieces(self) -> dict[int, str]:
        """All tokens of the whole tokenizer by their ids."""
        return pieces_of(self.content)

    @cached_property
    def unknown(self) -> int:
        """The new id of what cannot be told; -1 where nothing is unknown, as with bytes."""
        old_id = unknown_in(self.content)
        return -1 if old_id is None else int(self.new[old_id])

    @cached_property
    def parts(self) -> dict[int, set[int]]:
        """Of each token of the whole tokenizer that merges make, what it is made of; empty without merges."""
        return parts_of(self.content)

    @cached_property
    def needed(self) -> set[int]:
        """Ids of pieces of the whole tokenizer without which a text may become unknown: bytes, mostly."""
        return always_there(self.content)

    def translate(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs as the pruned tokenizer would have made them; names, types, devices and order stay.

        Lengths may change: a batch is padded anew to its longest text and never becomes narrower, and what is longer
        than a fixed length or the limit is truncated as tokenizers do, at the end of the longest text.

        Raises:
            StageError: an id is not one of the tokenizer's.
        """
        translated_inputs = dict(inputs)
        for text in self.texts:
            translated_inputs |= self._translated(text, inputs)
        return translated_inputs

    def tokens(self, inputs: Mapping[str, Tensor], pad: int) -> Iterator[Ids]:
        """The ids (T,) of each text's input in a batch, without padding, which has the id `pad`."""
        for text in self.texts:
            ids = inputs[text.ids].cpu().numpy()
            self._check(text, ids)
            yield ids[inputs[text.mask].cpu().numpy() != 0 if text.mask else ids != pad]

    def _check(self, text: Text, ids: Ids) -> None:
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self.new):
            expected = f"0 to {len(self.new) - 1}, those of the task's tokenizer"
            raise StageError(f"`{text.ids}` has ids from {ids.min()} to {ids.max()}", expected=expected)

    def _translated(self, text: Text, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ids = inputs[text.ids].cpu().numpy()
        self._check(text, ids)
        mask = inputs[text.mask].cpu().numpy() if text.mask else (ids != self.pad).astype(np.int64)
        types = inputs[text.types].cpu().numpy() if text.types else np.zeros_like(ids)
        new = self.new[ids]
        # A word that has all its pieces is cut as it was, so rows in which nothing is lost are right already.
        lost = np.flatnonzero(((new < 0) & (mask != 0)).any(1))
        room = ids.shape[1] if text.fixed else self.limit and max(self.limit, ids.shape[1])
        new_rows = [self._row(ids[row][mask[row] != 0], types[row][mask[row] != 0], room) for row in lost]
        blocks = self._placed((np.where(new < 0, self.new[self.pad], new), mask, types), lost, new_rows)
        named = zip((text.ids, text.mask, text.types), blocks, strict=True)
        return {name: torch.from_numpy(block).to(inputs[name]) for name, block in named if name}

    def _placed(self, blocks: Sequence[Ids], rows: Ids, new_rows: Sequence[Row]) -> Sequence[Ids]:
        """Ids, mask and types (N, L), with some rows replaced and as wide as these need."""
        if not new_rows:
            return blocks
        missing = max(0, *(len(ids) - blocks[0].shape[1] for ids, _ in new_rows))
        beside = ((0, 0), (missing, 0) if self.left else (0, missing))
        fills = (int(self.new[self.pad]), 0, 0)
        wide = [np.pad(block, beside, constant_values=fill) for block, fill in zip(blocks, fills, strict=True)]
        for row, (ids, types) in zip(rows, new_rows, strict=True):
            place = slice(-len(ids), None) if self.left else slice(len(ids))
            for block, fill, values in zip(wide, fills, (ids, [1] * len(ids), types), strict=True):
                block[row] = fill
                block[row, place] = values
        return wide

    def _row(self, ids: Ids, types: Ids, room: int | None) -> Row:
        """The new ids and the types of one sequence, without padding and no longer than the room."""
        old, kinds, tokens = ids.tolist(), types.tolist(), list[tuple[int, int]]()
        for start, end in self._words(ids):
            same = [self._table[i] for i in old[start:end]]
            tokens += [(n, kinds[start]) for n in (self._cutter.cut(tuple(old[start:end])) if -1 in same else same)]
        if room is not None and len(tokens) > room:
            tokens = _truncated(tokens, {int(self.new[token]) for token in self.frame}, room)
        return [token for token, _ in tokens], [kind for _, kind in tokens]

    def _words(self, ids: Ids) -> Iterator[tuple[int, int]]:
        """Where what is cut as one begins and ends: a word, or of subwords a text; an added token is alone."""
        goes_on = self._cutter.continues[ids]
        goes_on[1:] &= ~self._cutter.alone[ids[:-1]]
        goes_on[:1] = False
        yield from pairwise([*np.flatnonzero(~goes_on).tolist(), len(ids)])

    @cached_property
    def _table(self) -> list[int]:
        return list(map(int, self.new))

    @cached_property
    def _cutter(self) -> Cutter:
        """What cuts words, or what else stands together, that have lost a piece."""
        return Cutter(self.content, json.loads(self.pruned), len(self.new))


def ranges(ids: Iterable[int]) -> str:
    """[0, 1, 2, 7] -> "0-2,7"."""
    ends = list[list[int]]()
    for i in ids:
        if ends and i == ends[-1][1] + 1:
            ends[-1][1] = i
        else:
            ends.append([i, i])
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in ends)


def unranged(text: str) -> list[int]:
    """What `ranges` wrote."""
    ends = [part.partition("-") for part in text.split(",")]
    return [i for a, _, b in ends for i in range(int(a), int(b or a) + 1)]


def _truncated(tokens: Sequence[tuple[int, int]], frame: set[int], room: int) -> list[tuple[int, int]]:
    """The tokens without the ends of the longest texts between the frame, as tokenizers do: "longest_first"."""
    parts = list[list[tuple[int, int]]]([[]])
    for token in tokens:
        if token[0] in frame:
            parts += [[token], []]
        else:
            parts[-1].append(token)
    texts = sorted(range(0, len(parts), 2), key=lambda i: len(parts[i]))  # every other part is of the frame
    free_places = max(room - len(parts) // 2, 0)
    for position, i in enumerate(texts):
        parts[i] = parts[i][: free_places // (len(texts) - position)]
        free_places -= len(parts[i])
    return [token for part in parts for token in part][:room]
