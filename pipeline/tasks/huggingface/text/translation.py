"""Texts into texts, for encoder-decoders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.batches import Inputs, Outputs
from pipeline.errors import ConfigError, StageError
from pipeline.task import Forward
from pipeline.tasks import metrics
from pipeline.tasks.huggingface.columns import Columns
from pipeline.tasks.huggingface.rows import DatasetTask, Encoding, encoded_parts, integers
from pipeline.tasks.huggingface.source import Parts
from pipeline.tasks.huggingface.targets import TARGET
from pipeline.tasks.huggingface.text import tokens
from pipeline.tasks.huggingface.text.assembly import (
    IDS,
    LENGTH,
    MASK,
    Pad,
    Reader,
    Texts,
    checked_texts,
    padded,
    reader_for,
    text_task,
)

DECODER_IDS = "decoder_input_ids"
DECODER_LENGTH = "decoder_tokens"
SEQUENCES = "sequences"
IGNORED = -100
LEAST = 2  # tokens of a decoder's input: a length of one is a constant to a tracer


class Translation(Texts):
    """Texts, and the texts that they should become."""

    algorithm: tokens.Algorithm = Field("bpe", description="of `vocabulary`, which both languages share")
    lowercase: bool = Field(False, description="with `vocabulary`: make capitals small")
    max_target_length: int = Field(128, ge=2, description="tokens of a translation at most, its end included")
    start: str | None = Field(
        None, description="the token that the decoder begins with; the one that pads unless given, as Marian's"
    )
    score: Literal["chrf", "bleu"] = Field("chrf", description="of a sentence, as sacrebleu's / 100")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the loss on all tokens alike")


@dataclass(frozen=True)
class Marks:
    """The tokens that a decoder begins, ends and is padded with, and how long it may go on."""

    start: int
    end: int
    pad: int
    longest: int


def translation(parts: Parts, columns: Columns, settings: Translation) -> DatasetTask:
    """Translation by greedy decoding: the score of an example is its sentence's chrF or BLEU, corpus BLEU a metric.

    Inputs are `input_ids` and `attention_mask` (N, S) and `decoder_input_ids` (N, T), targets label ids (N, T) with
    -100 after the end. Predictions are ids, and so are what a deployed model gives that generates by itself.
    """
    reader = reader_for(parts, (*columns.inputs, columns.target), settings)
    marks = marks_of(reader.tokenizer, settings)
    axes = {IDS: {1: LENGTH}, MASK: {1: LENGTH}, DECODER_IDS: {1: DECODER_LENGTH}}
    fills = {IDS: marks.pad, MASK: 0, DECODER_IDS: marks.pad}
    names = (columns.inputs[0], columns.target)
    encode, key = partial(encode_translations, reader, marks, names), [names, reader.key, vars(marks)]
    encoding = Encoding(encode, names, {IDS: "int32[]", TARGET: "int32[]"}, key)
    decode, token = partial(sentence, reader.tokenizer), reader.tokenizer.convert_ids_to_tokens
    return text_task(
        parts,
        settings,
        reader,
        encoded_parts(parts, encoding, partial(read_translation, marks)),
        PadTranslations(fills, axes, settings.multiple, max(reader.longest, marks.longest)),
        loss=partial(token_cross_entropy, settings.label_smoothing),
        score=partial(sentence_score, decode, settings.score),
        decode=partial(greedy, marks),
        output="logits",
        metrics={"bleu": metrics.bleu(decode)},
        as_target=partial(as_target, marks),
        preprocessing=f"`{columns.inputs[0]}` as tokens of {reader.words}, at most {reader.longest}, padded "
        f"to the longest; the decoder begins with {token(marks.start)} and ends with {token(marks.end)}",
        kind="translation",
        # Decoding goes on for so many tokens, whatever the data's longest is.
        longest={"max_target_length": marks.longest},
    )


def marks_of(tokenizer: Any, settings: Translation) -> Marks:
    """The tokens of the decoder. Raises ConfigError where the tokenizer has none to end with, or not the start."""
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end is None:
        raise ConfigError("the tokenizer has no token to end with", expected="one with an eos_token")
    start = tokenizer.pad_token_id
    if settings.start is not None:
        start = tokenizer.get_vocab().get(settings.start)
        if start is None:
            raise ConfigError(f"`start` is {settings.start}", expected="a token of the tokenizer")
    return Marks(start, end, tokenizer.pad_token_id, settings.max_target_length)


def encode_translations(
    reader: Reader, marks: Marks, columns: Sequence[str], rows: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    """Texts and their translations as token ids; each translation ends with the end."""
    text, translated = columns
    targets = checked_texts(rows[translated], translated)
    labels = reader.tokenizer(text_target=targets, truncation=True, max_length=marks.longest)[IDS]
    ended = [ids if ids[-1:] == [marks.end] else [*ids[: marks.longest - 1], marks.end] for ids in labels]
    return {IDS: reader(rows, text)[IDS], TARGET: ended}


def read_translation(marks: Marks, row: Mapping[str, Any]) -> tuple[Inputs, Tensor]:
    """An example of a row: ids, a mask of ones and the decoder's input; the labels. Each int64 (L,)."""
    ids, labels = integers(row[IDS]), integers(row[TARGET])
    return {IDS: ids, MASK: torch.ones_like(ids), DECODER_IDS: shifted(labels, marks.start)}, labels


@dataclass(frozen=True)
class PadTranslations(Pad):
    """Pads labels too, by -100, to the width of the decoder's input."""

    def __call__(self, rows: list[tuple[Inputs, Any]]) -> tuple[Inputs, Any]:
        """A list of examples -> (inputs (N, S) and (N, T), labels (N, T))."""
        inputs, _ = super().__call__([(example, 0) for example, _ in rows])
        return inputs, padded([labels for _, labels in rows], inputs[DECODER_IDS].shape[1], IGNORED)


def shifted(labels: Tensor, start: int) -> Tensor:
    """What the decoder reads to give the labels (T,): the start, and all of them but the last."""
    return torch.cat([labels.new_tensor([start]), labels[:-1]])


def token_cross_entropy(smoothing: float, outputs: Outputs, targets: Tensor) -> Tensor:
    """Mean cross-entropy a token of `logits` (N, T, tokens) against label ids (N, T), without those that are -100."""
    logits = outputs["logits"].flatten(0, 1)
    return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, label_smoothing=smoothing)


def greedy(marks: Marks, forward: Forward, inputs: Inputs) -> Tensor:
    """Ids (N, T), padded after the end: the likeliest next token at every step.

    Only as much of the decoder's input is computed as there is. Of a model that generates by itself, what it gives.
    """
    ids = inputs[IDS]
    count = len(ids)
    read = torch.full((count, marks.longest + 1), marks.pad, dtype=ids.dtype)
    read[:, 0] = marks.start
    ended = torch.zeros(count, dtype=torch.bool)
    for step in range(marks.longest):
        outputs = forward({**inputs, DECODER_IDS: read[:, : max(step + 1, LEAST)].to(ids.device)})
        if SEQUENCES in outputs:
            return outputs[SEQUENCES]
        logits = outputs["logits"][:, step].cpu()
        logits[:, marks.pad] = -torch.inf  # padding is no word; some models that begin with it would say it
        read[:, step + 1] = logits.argmax(-1).masked_fill(ended, marks.pad)
        ended |= read[:, step + 1] == marks.end
        if ended.all():
            break
    return read[:, 1 : step + 2].to(ids.device)


def as_target(marks: Marks, inputs: Inputs, ids: Tensor) -> tuple[Inputs, Tensor]:
    """The training example (inputs, label ids (T,)) that has generated tokens as its target.

    Args:
        marks: of the task.
        inputs: one example's; its `decoder_input_ids` are replaced.
        ids: (T',) as generated: perhaps with the start in front, ignored after the first end.

    Raises:
        StageError: the sequence is empty.
    """
    labels = ids[1:] if ids[:1].tolist() == [marks.start] else ids
    if marks.pad != marks.end:
        labels = labels[labels != marks.pad]
    ends = (labels == marks.end).nonzero()
    labels = (labels[: int(ends[0]) + 1] if len(ends) else labels)[: marks.longest]
    if not len(labels):
        raise StageError("a generated sequence is empty", where="as_target", expected="a token or more")
    return {**inputs, DECODER_IDS: shifted(labels, marks.start)}, labels


def sentence(tokenizer: Any, ids: list[int]) -> str:
    """Token ids as text, without what pads, begins and ends."""
    return str(tokenizer.decode([i for i in ids if i >= 0], skip_special_tokens=True)).strip()


def sentence_score(
    decode: Callable[[list[int]], str], name: Literal["chrf", "bleu"], predictions: Tensor, targets: Tensor
) -> Tensor:
    """chrF or BLEU of each sentence (N,), 0 to 1, as sacrebleu's `sentence_chrf` and `sentence_bleu` / 100.

    Args:
        decode: ids -> text.
        name: which of the two. chrF counts letters and tells short sentences apart, which BLEU does badly.
        predictions, targets: ids (N, T) and label ids (N, T'); those below zero are left out.

    Reference:
        Popovic: chrF: character n-gram F-score for automatic MT evaluation, 2015.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF() if name == "chrf" else BLEU(effective_order=True)
    hypotheses, references = ([decode(row) for row in ids.tolist()] for ids in (predictions, targets))
    scores = [metric.sentence_score(a, [b]).score / 100 for a, b in zip(hypotheses, references, strict=True)]
    return torch.tensor(scores)
