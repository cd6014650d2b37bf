"""Multi30k: one-sentence captions of photographs, English into German, read with Hugging Face `datasets`."""

import random
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.batches import Inputs, Outputs
from pipeline.errors import StageError
from pipeline.task import Forward, Split, Task
from pipeline.tasks import tables

from .words import END, IGNORED, PAD, START, WORDS, bleu, byte_pairs, chrf, texts

LENGTH = 40  # tokens at most of a source, and of what the decoder writes, the end included
VALIDATION = 500


class Pair(NamedTuple):
    """A sentence and its translation, as ids with an end."""

    source: list[int]
    target: list[int]


def task(path: str = "bentrevett/multi30k", limit: int | None = None, smoothing: float = 0.1) -> Task:
    """Translation scored by sentence chrF from 0 to 1, with BLEU (13a, case kept) over the whole split.

    Inputs are `input_ids` and `attention_mask` (40,) and `decoder_input_ids` (40,), targets are label ids with -100
    after the end; all int64. Byte pairs are learned from the train part alone, in a few seconds, the same every time.

    Pairs of train with a sentence of test, or longer than 40 tokens, are left out; 500, drawn with a fixed seed before
    that, validate. All of test is kept, and its sources are cut after 40 tokens. Where the validation part is the test
    split, 2 and 175 of 29,000 are left out, 28,324 train, 499 validate, and 3 sources of 1,014 are cut.

    Args:
        path: a name on the Hugging Face hub, or a folder of parquet files, with the columns `en` and `de`. Its test
            part is the test split; where it has none, its validation part is.
        limit: pairs read of each part at most, for small runs.
        smoothing: share of each label that the loss gives to all words alike, 0 to below 1.

    Raises:
        ConfigError: there is no such data, or it has other columns.
    """
    parts = tables.parts(path)
    name = "test" if "test" in parts else "validation"
    learned, asked = _rows(parts["train"], limit, path), _rows(parts[name], limit, path)
    tokenizer = byte_pairs(text for row in learned for text in row)
    train, validation = held_out(pairs(tokenizer, unseen(learned, asked)))
    return Task(
        train=_by_length(filter(fits, train)),
        validation=_by_length(filter(fits, validation)),
        test=_by_length(pairs(tokenizer, asked)),
        loss=partial(token_cross_entropy, smoothing=smoothing),
        score=partial(chrf, tokenizer),
        metrics={"bleu": partial(bleu, tokenizer)},
        decode=greedy,
        as_target=as_target,
        preprocessing=f"{WORDS:,} byte pairs of both languages, case kept, and <end>, padded with <pad> to {LENGTH}",
        show=partial(_show, tokenizer),
    )


def token_cross_entropy(outputs: Outputs, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy a token of `logits` (N, T, words) against label ids (N, T'), without those that are -100.

    Labels beyond the T steps that the model can write do not count.
    """
    logits = outputs["logits"]
    labels = targets[:, : logits.shape[1]]
    counted = labels != IGNORED
    return F.cross_entropy(logits[counted], labels[counted], label_smoothing=smoothing)


def greedy(forward: Forward, inputs: Inputs) -> Tensor:
    """The likeliest next token at every step, up to the end: ids (N, 40), padded after it.

    The decoder's input is always whole, since an exported graph has a fixed length; what stands in it after the step in
    question is hidden by the causal mask. Sentences that have ended are not asked again.
    """
    ids = torch.full_like(inputs["decoder_input_ids"], PAD)
    buffer = ids.clone()
    buffer[:, 0] = START
    going = torch.arange(len(ids))
    for step in range(ids.shape[1]):
        asked = {name: value[going] for name, value in inputs.items()} | {"decoder_input_ids": buffer[going]}
        words = forward(asked)["logits"][:, step].argmax(-1).to(ids.device)
        ids[going, step] = words
        buffer[going, step + 1 : step + 2] = words[:, None]
        going = going[words != END]
        if not len(going):
            break
    return ids


def as_target(inputs: Inputs, ids: Tensor) -> tuple[Inputs, Tensor]:
    """The training example that has a generated sequence as its target: (inputs, label ids (40,)).

    Args:
        inputs: one example's inputs; its `decoder_input_ids` are replaced.
        ids: (T',) as `greedy` or `generate` gives them: perhaps with the start in front, ignored after the first end.

    Raises:
        StageError: the sequence is empty or too long.
    """
    words = ids.tolist()
    words = words[1:] if words[:1] == [START] else words
    words = words[: words.index(END) + 1] if END in words else words
    if not 0 < len(words) <= LENGTH:
        raise StageError(f"a sequence of {len(words)} tokens", where="as_target", expected=f"1 to {LENGTH} tokens")
    shifted = torch.tensor(_filled([START, *words[:-1]], PAD))
    return {**inputs, "decoder_input_ids": shifted}, torch.tensor(_filled(words, IGNORED))


def pairs(tokenizer: Tokenizer, rows: Sequence[tuple[str, str]]) -> list[Pair]:
    """The ids of each (English, German) with an end."""
    sides = [[[*found.ids, END] for found in tokenizer.encode_batch(list(side))] for side in zip(*rows, strict=True)]
    return [Pair(*both) for both in zip(*sides, strict=True)]


def unseen(rows: Sequence[tuple[str, str]], asked: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The rows without those that have a sentence of `asked` in either language."""
    english, german = ({row[i] for row in asked} for i in (0, 1))
    return [row for row in rows if row[0] not in english and row[1] not in german]


def held_out(whole: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Train and, drawn with a fixed seed, 500 pairs for validation; of few pairs a fifth."""
    order = random.Random(0).sample(range(len(whole)), len(whole))
    size = min(VALIDATION, len(whole) // 5)
    return [whole[i] for i in order[size:]], [whole[i] for i in order[:size]]


def fits(pair: Pair) -> bool:
    """Whether neither side is too long to be learned whole."""
    return len(pair.source) <= LENGTH and len(pair.target) <= LENGTH


def example(pair: Pair, width: int = LENGTH) -> tuple[Inputs, Tensor]:
    """The ids as inputs and labels, the labels filled up to a width."""
    source = pair.source[:LENGTH]
    seen = _filled([1] * len(source), 0)
    given = {"input_ids": torch.tensor(_filled(source, PAD)), "attention_mask": torch.tensor(seen)}
    inputs, _ = as_target(given, torch.tensor(pair.target[:LENGTH]))
    return inputs, torch.tensor(_filled(pair.target, IGNORED, width))


def _by_length(found: Iterable[Pair]) -> Split:
    """The examples by the length of their sources, so that those that are generated together end at about one time.

    Labels are as wide as the longest.
    """
    ordered = sorted(found, key=lambda pair: len(pair.source))
    width = max([LENGTH, *(len(pair.target) for pair in ordered)])
    return Split([example(pair, width) for pair in ordered])


def _filled(ids: list[int], by: int, width: int = LENGTH) -> list[int]:
    return [*ids, *[by] * (width - len(ids))]


def _show(tokenizer: Tokenizer, inputs: Inputs) -> str:
    return texts(tokenizer, inputs["input_ids"][None])[0]


def _rows(part: Any, limit: int | None, path: str) -> list[tuple[str, str]]:
    """(English, German) of each row."""
    part = tables.rows(part, ("en", "de"), path, limit)
    return [(english.strip(), german.strip()) for english, german in zip(part["en"][:], part["de"][:], strict=True)]
