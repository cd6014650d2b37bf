"""Counts of tokens in a split, those that stay whatever they count, and what pruning does to a split."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.forms.text.prunable import with_parts
from pipeline.forms.text.tokenizer import added_in, prefix_of
from pipeline.forms.text.vocabulary import Vocabulary
from pipeline.task import Split

BATCH_SIZE = 256

Counts = NDArray[np.int64]


def counted(data: Split, whole: Vocabulary, advance: Callable[[int], None]) -> tuple[Counts, int]:
    """(tokens,) how often each id occurs in a split, padding left out; and the longest sequence."""
    counts, longest = np.zeros(len(whole.new), dtype=np.int64), 0
    for batch in data.loader(BATCH_SIZE):
        longest = max(longest, *(batch.inputs[text.ids].shape[1] for text in whole.texts))
        for tokens in whole.tokens(batch.inputs, whole.pad):
            counts += np.bincount(tokens, minlength=len(counts))
        advance(len(batch.index))
    return counts, longest


def always_kept(counts: Counts, whole: Vocabulary, characters: bool) -> set[int]:
    """Ids of added and unknown tokens and bytes, where asked of the characters of train, with what they are made of.

    A character is a piece of that one character, with and without what marks the inside of a word.
    """
    must = {*added_in(whole.content), *whole.frame, whole.pad, *whole.needed}
    must |= {int(whole.ids[whole.unknown])} if whole.unknown >= 0 else set()
    if characters and whole.content["model"]["type"] != "WordLevel":
        prefix = prefix_of(whole.content)
        words = [whole.pieces[i].removeprefix(prefix) for i in np.flatnonzero(counts).tolist() if i not in must]
        character_pieces = {start + character for character in set("".join(words)) for start in ("", prefix)}
        must |= {i for i, piece in whole.pieces.items() if piece in character_pieces}
    return with_parts(must, whole.parts)


def most_frequent(ids: Sequence[int], must: set[int], whole: Vocabulary, keep: int | None) -> set[int]:
    """What must stay, and of the ids in their order as many as `keep` allows, each with what merges make it of."""
    kept_ids = set(must)
    for i in ids:
        more = with_parts([i], whole.parts) - kept_ids
        if keep is not None and len(kept_ids) + len(more) > keep:
            break
        kept_ids |= more
    return kept_ids


def unknown_share(data: Split, vocabulary: Vocabulary) -> float:
    """Share of unknown tokens in what a split becomes; what stands around texts does not count."""
    unknown = total = 0
    around = [int(vocabulary.new[i]) for i in vocabulary.frame]
    for batch in data.loader(BATCH_SIZE):
        for tokens in vocabulary.tokens(vocabulary.translate(batch.inputs), int(vocabulary.new[vocabulary.pad])):
            unknown += int((tokens == vocabulary.unknown).sum())
            total += int((~np.isin(tokens, around)).sum())
    return unknown / max(total, 1)


def changed_share(data: Split, vocabulary: Vocabulary) -> float:
    """Share of the examples of a split in which a token has left."""
    changed = 0
    for batch in data.loader(BATCH_SIZE):
        lost = [(vocabulary.new[batch.inputs[text.ids].numpy()] < 0).any(1) for text in vocabulary.texts]
        changed += int(np.any(lost, axis=0).sum())
    return changed / max(len(data), 1)
