"""The one vocabulary of both languages, and how good sentences are that are written in it."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import sacrebleu
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

PAD, START, END = 0, 1, 2
SPECIAL = ["<pad>", "<start>", "<end>"]
WORDS = 4000
IGNORED = -100


def byte_pairs(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of bytes and their most frequent pairs in these texts; it gives every text back as it was."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def chrf(tokenizer: Tokenizer, predictions: Tensor, targets: Tensor) -> Tensor:
    """chrF of each sentence as a share, (N,), from ids (N, T) and label ids (N, T').

    Reference:
        Popovic: chrF: character n-gram F-score for automatic MT evaluation, 2015.
    """
    rows = zip(texts(tokenizer, predictions), texts(tokenizer, targets), strict=True)
    return torch.tensor([sacrebleu.sentence_chrf(ours, [theirs]).score / 100 for ours, theirs in rows])


def bleu(tokenizer: Tokenizer, predictions: Tensor, targets: Tensor) -> float:
    """BLEU of all sentences together, 0 to 100, from ids (N, T) and label ids (N, T'): 13a, case kept."""
    rows = zip(texts(tokenizer, predictions), texts(tokenizer, targets), strict=True)
    return bleu_of(np.array([counts(*row) for row in rows]))


def bleu_of(rows: NDArray[np.int64]) -> float:
    """BLEU, 0 to 100, of sentences that have these `counts` (N, 10)."""
    lengths, correct, total = np.split(rows.sum(0), [2, 6])
    found = sacrebleu.BLEU.compute_bleu(correct.tolist(), total.tolist(), *lengths.tolist(), smooth_method="exp")
    return float(found.score)


@lru_cache(maxsize=2**16)  # a bootstrap asks for the same sentences again and again
def counts(ours: str, theirs: str) -> tuple[int, ...]:
    """All that BLEU takes of a sentence: tokens of both, n-grams of orders 1 to 4 that are right, and all of them."""
    found = sacrebleu.BLEU(effective_order=True).corpus_score([ours], [[theirs]])
    return (found.sys_len, found.ref_len, *found.counts, *found.totals)


def texts(tokenizer: Tokenizer, ids: Tensor) -> list[str]:
    """The sentences of ids (N, T), each up to its end."""
    rows = [row[: row.index(END)] if END in row else row for row in ids.masked_fill(ids == IGNORED, END).tolist()]
    return [text.strip() for text in tokenizer.decode_batch(rows)]
