"""Pairs of sentences and how alike they are: two vectors of one encoder, and the cosine between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.base.batches import Inputs, Outputs
from pipeline.errors import ConfigError
from pipeline.task import Forward
from pipeline.tasks import metrics
from pipeline.tasks.huggingface.columns import Columns
from pipeline.tasks.huggingface.rows import TARGET, DatasetTask, Reals, data, encoded_parts, integers
from pipeline.tasks.huggingface.source import Parts
from pipeline.tasks.huggingface.text import tokens
from pipeline.tasks.huggingface.text.texts import (
    IDS,
    LENGTH,
    MASK,
    Pad,
    Shown,
    Texts,
    checked_texts,
    longest_of,
    made_by,
    minus_squared_error,
    tokenizer_for,
)

SIDES = ("a", "b")
OUTPUT = "similarity"


class Similarity(Texts):
    """Two sentences, and a number that is larger the more alike they are."""

    range: tuple[float, float] | None = Field(
        default=None,
        description="the numbers of what has nothing in common and of what is the same, such as [0, 5]; learned as "
        "cosines of 0 and 1. 0 and 1 unless given",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.range and self.range[0] >= self.range[1]:
            raise ValueError("range: a smaller and a larger number")
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
    """How alike two sentences are: the mean squared error of the cosine is the loss, its negative an example's score.

    Spearman's correlation, which is what is usually reported, and Pearson's are the metrics. That the score is on no
    ratio scale is as in `texts.regression`.

    Raises:
        ConfigError: the numbers are not cosines, and there is no range.
    """
    tokenizer = tokenizer_for(parts, columns.inputs, settings)
    longest = tokens.longest(tokenizer, settings.max_length)
    target = Reals(columns.target, *(settings.range or (0.0, 1.0)))
    digest = tokens.digest(tokenizer)
    encode = EncodePairs(columns.inputs, target, tokenizer, digest, longest)
    names = [f"{name}_{side}" for side in SIDES for name in (IDS, MASK)]
    axes = {name: {1: LENGTH} for name in names}
    fills = {name: tokenizer.pad_token_id if name.startswith(IDS) else 0 for name in names}
    collate = Pad(fills, axes, settings.multiple, longest)
    rows = encoded_parts(parts, encode, read_pair)
    dataset = data(rows, settings, collate, digest)
    first, second = columns.inputs
    return DatasetTask(
        **dataset.splits,
        loss=squared_error,
        score=minus_squared_error,
        decode=cosine,
        output=OUTPUT,
        metrics={"spearman": metrics.spearman, "pearson": metrics.pearson},
        axes=axes,
        tokenizer=tokenizer,
        show=Shown(tokenizer, tuple(f"{IDS}_{side}" for side in SIDES)),
        preprocessing=f"`{first}` and `{second}`, each as tokens of {made_by(settings, tokenizer)}, at most {longest}, "
        "padded to the longest of both; they are learned as 0 to 1",
        kind="similarity",
        longest={"max_length": longest_of(rows, settings, collate)},
        notes=(*parts.notes, *dataset.notes),
    )


def squared_error(outputs: Outputs, targets: Tensor) -> Tensor:
    """Mean squared error of `similarity` (N,) against real numbers (N,)."""
    return F.mse_loss(outputs[OUTPUT], targets)


def cosine(forward: Forward, inputs: Inputs) -> Tensor:
    """The cosine (N,) that the model gives as `similarity`."""
    outputs = forward(inputs)
    if OUTPUT not in outputs or outputs[OUTPUT].ndim != 1:
        expected = f"`{OUTPUT}` (N,), as SentencePair gives it"
        raise ConfigError(f"the model gives {', '.join(outputs)}", expected=expected)
    return outputs[OUTPUT]


@dataclass(frozen=True)
class EncodePairs:
    """Two sentences as token ids each, and how alike they are."""

    texts: tuple[str, ...]
    target: Reals
    tokenizer: Any
    digest: str
    longest: int
    batch: int = 1000

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return (*self.texts, self.target.column)

    @property
    def key(self) -> Any:
        """What tells it apart."""
        return [self.texts, self.target.key, self.digest, self.longest]

    def features(self) -> dict[str, Any]:
        """What is kept."""
        from datasets import List, Value

        return {f"{IDS}_{side}": List(Value("int32")) for side in SIDES} | {TARGET: Value("float32")}

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """A few rows."""
        columns: dict[str, list[Any]] = {TARGET: self.target(rows[self.target.column])}
        if wrong := next((value for value in columns[TARGET] if not -1 <= value <= 1), None):
            problem = f"with `range` a value in `{self.target.column}` becomes {wrong:g}"
            raise ConfigError(problem, expected="-1 to 1, as a cosine is", fix="Set `range`, such as [0, 5]")
        for side, name in zip(SIDES, self.texts, strict=True):
            texts = checked_texts(rows[name], name)
            columns[f"{IDS}_{side}"] = self.tokenizer(texts, truncation=True, max_length=self.longest)[IDS]
        return columns


def read_pair(row: Mapping[str, Any]) -> tuple[Inputs, Any]:
    """An example of a row: ids and a mask of ones for each sentence, int64 (L,)."""
    inputs: Inputs = {}
    for side in SIDES:
        ids = integers(row[f"{IDS}_{side}"])
        inputs |= {f"{IDS}_{side}": ids, f"{MASK}_{side}": torch.ones_like(ids)}
    return inputs, torch.tensor(row[TARGET].as_py())
