"""Pairs of sentences and how alike they are: two vectors of one encoder, and the cosine between them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.base.batches import Inputs
from pipeline.errors import ConfigError
from pipeline.task import Forward
from pipeline.tasks.huggingface.columns import Columns
from pipeline.tasks.huggingface.rows import DatasetTask, Encoding, encoded_parts, integers
from pipeline.tasks.huggingface.source import Parts
from pipeline.tasks.huggingface.targets import TARGET, Reals, of_numbers
from pipeline.tasks.huggingface.text.assembly import IDS, LENGTH, MASK, Pad, Range, Reader, Texts, reader_for, text_task

SIDES = ("a", "b")
OUTPUT = "similarity"


class Similarity(Texts):
    """Two sentences, and a number that is larger the more alike they are."""

    range: Range | None = Field(
        None,
        description="the numbers of what has nothing in common and of what is the same, such as [0, 5]; learned as "
        "cosines of 0 and 1. 0 and 1 unless given",
    )

    @model_validator(mode="after")
    def _without_types(self) -> Self:
        if self.token_types:
            raise ValueError("no token_types: each sentence is read by itself")
        return self


class SentencePair(nn.Module):
    """An encoder that reads both sentences of each pair, and the cosine of the means of their tokens' vectors.

    Args:
        encoder: (input_ids, attention_mask) (N, L) -> last_hidden_state (N, L, width).

    Reference:
        Reimers and Gurevych: Sentence-BERT, 2019, 1908.10084, section 3 (mean pooling, regression on the cosine).
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, input_ids_a: Tensor, attention_mask_a: Tensor, input_ids_b: Tensor, attention_mask_b: Tensor
    ) -> dict[str, Tensor]:
        """Ids and masks (N, L) of both -> `similarity` (N,), -1 to 1. One run of the encoder reads all 2 N."""
        ids, mask = torch.cat([input_ids_a, input_ids_b]), torch.cat([attention_mask_a, attention_mask_b])
        vectors = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(vectors.dtype)
        means = F.normalize((vectors * weights).sum(1) / weights.sum(1).clamp(min=1), dim=-1)
        first, second = means.reshape(2, -1, means.shape[-1])
        return {OUTPUT: (first * second).sum(-1)}


def similarity(parts: Parts, columns: Columns, settings: Similarity) -> DatasetTask:
    """How alike two sentences are, as the cosine of their vectors; see `of_numbers`.

    Raises:
        ConfigError: the numbers are not cosines, and there is no range.
    """
    reader = reader_for(parts, columns.inputs, settings)
    pad = reader.tokenizer.pad_token_id
    fills = {f"{name}_{side}": fill for side in SIDES for name, fill in ((IDS, pad), (MASK, 0))}
    collate = Pad(fills, {name: {1: LENGTH} for name in fills}, settings.multiple, reader.longest)
    target = Reals(columns.target, *(settings.range or (0.0, 1.0)))
    encode, key = partial(encode_pairs, reader, columns.inputs, target), [columns.inputs, target.key, reader.key]
    kept = {f"{IDS}_{side}": "int32[]" for side in SIDES} | {TARGET: target.type}
    rows = encoded_parts(parts, Encoding(encode, (*columns.inputs, target.column), kept, key), read_pair)
    first, second = columns.inputs
    words = f"`{first}` and `{second}`, each as tokens of {reader.words}, at most {reader.longest}, "
    words += "padded to the longest of both; they are learned as 0 to 1"
    rest = {**of_numbers(OUTPUT), "decode": cosine, "kind": "similarity"}
    return text_task(parts, settings, reader, rows, collate, **rest, preprocessing=words)


def cosine(forward: Forward, inputs: Inputs) -> Tensor:
    """The cosine (N,) that the model gives as `similarity`."""
    outputs = forward(inputs)
    if OUTPUT not in outputs or outputs[OUTPUT].ndim != 1:
        expected = f"`{OUTPUT}` (N,), as SentencePair gives it"
        raise ConfigError(f"the model gives {', '.join(outputs)}", expected=expected)
    return outputs[OUTPUT]


def encode_pairs(
    reader: Reader, texts: Sequence[str], target: Reals, rows: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    """Two sentences as token ids each, and how alike they are."""
    columns: dict[str, list[Any]] = {TARGET: target(rows[target.column])}
    if wrong := next((value for value in columns[TARGET] if not -1 <= value <= 1), None):
        problem = f"with `range` a value in `{target.column}` becomes {wrong:g}"
        raise ConfigError(problem, expected="-1 to 1, as a cosine is", fix="Set `range`, such as [0, 5]")
    return columns | {f"{IDS}_{side}": reader(rows, name)[IDS] for side, name in zip(SIDES, texts, strict=True)}


def read_pair(row: Mapping[str, Any]) -> tuple[Inputs, Any]:
    """An example of a row: ids and a mask of ones for each sentence, int64 (L,)."""
    inputs: Inputs = {}
    for side in SIDES:
        ids = integers(row[f"{IDS}_{side}"])
        inputs |= {f"{IDS}_{side}": ids, f"{MASK}_{side}": torch.ones_like(ids)}
    return inputs, torch.tensor(row[TARGET].as_py())
