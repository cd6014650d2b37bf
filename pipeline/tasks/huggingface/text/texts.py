"""Texts and pairs of texts: classification, and regression to one real number."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.base.batches import Inputs
from pipeline.errors import ConfigError
from pipeline.task import Forward
from pipeline.tasks import metrics
from pipeline.tasks.huggingface.columns import Columns
from pipeline.tasks.huggingface.rows import DatasetTask, Encoding, encoded_parts, integers
from pipeline.tasks.huggingface.source import Parts
from pipeline.tasks.huggingface.targets import TARGET, Classes, Reals, classes, of_classes, of_numbers
from pipeline.tasks.huggingface.text.assembly import (
    IDS,
    LENGTH,
    MASK,
    TYPES,
    Pad,
    Range,
    Reader,
    Texts,
    reader_for,
    text_task,
)


class TextClassification(Texts):
    """Texts or pairs of texts, and classes."""

    metrics: tuple[Literal["f1", "matthews"], ...] = Field((), description="beside the accuracy")


class TextRegression(Texts):
    """Texts or pairs of texts, and a real number."""

    range: Range | None = Field(
        None, description="smallest and largest value; they are learned as 0 to 1, and the score is in these"
    )


def classification(parts: Parts, columns: Columns, settings: TextClassification) -> DatasetTask:
    """Single-label classification of texts: accuracy is the score; F1 is of the second of two, else the mean."""
    target = classes(parts.whole, columns.target)
    average: Literal["binary", "macro"] = "binary" if len(target.names) == 2 else "macro"
    choice = {"f1": partial(metrics.f1, average=average), "matthews": metrics.matthews}
    chosen = {name: choice[name] for name in settings.metrics}
    return _task(parts, columns, settings, target, **of_classes(target), metrics=chosen, kind="text_classification")


def regression(parts: Parts, columns: Columns, settings: TextRegression) -> DatasetTask:
    """One real number a text; see `of_numbers`."""
    target = Reals(columns.target, *(settings.range or (0.0, 1.0)))
    return _task(parts, columns, settings, target, **of_numbers("logits"), decode=one_number, kind="text_regression")


def one_number(forward: Forward, inputs: Inputs) -> Tensor:
    """The number (N,) that the model gives as `logits` (N, 1)."""
    logits = forward(inputs)["logits"]
    if logits[0].numel() != 1:
        raise ConfigError(f"`logits` has the shape {tuple(logits.shape)}", expected="one number an example, (N, 1)")
    return logits.flatten()


def encode_texts(
    reader: Reader, texts: Sequence[str], target: Classes | Reals, types: bool, rows: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    """Texts or pairs as token ids, and their targets; a mask is ones, and need not be kept."""
    encoding = reader(rows, *texts, return_token_type_ids=types, padding=False)
    if not all(encoding[IDS]):
        raise ConfigError("a text is empty, and the tokenizer adds nothing to it", fix="Leave such rows out")
    names = (IDS, TYPES) if types else (IDS,)
    return {name: encoding[name] for name in names} | {TARGET: target(rows[target.column])}


def read_text(row: Mapping[str, Any]) -> tuple[Inputs, Any]:
    """An example of a row: ids, a mask of ones, types where there are any; each int64 (L,)."""
    ids = integers(row[IDS])
    inputs = {IDS: ids, MASK: torch.ones_like(ids)}
    if TYPES in row:
        inputs[TYPES] = integers(row[TYPES])
    target = row[TARGET].as_py()
    return inputs, target if isinstance(target, int) else torch.tensor(target)


def _task(parts: Parts, columns: Columns, settings: Texts, target: Classes | Reals, **rest: Any) -> DatasetTask:
    reader = reader_for(parts, columns.inputs, settings)
    has_types = len(columns.inputs) == 2 and TYPES in reader.tokenizer.model_input_names
    types = has_types if settings.token_types is None else settings.token_types
    fills = {IDS: reader.tokenizer.pad_token_id, MASK: 0} | ({TYPES: 0} if types else {})
    collate = Pad(fills, {name: {1: LENGTH} for name in fills}, settings.multiple, reader.longest)
    encode = partial(encode_texts, reader, columns.inputs, target, types)
    kept = {IDS: "int32[]", TARGET: target.type} | ({TYPES: "int8[]"} if types else {})
    key = [columns.inputs, target.key, reader.key]
    rows = encoded_parts(parts, Encoding(encode, (*columns.inputs, target.column), kept, key), read_text)
    what = " and ".join(f"`{name}`" for name in columns.inputs)
    preprocessing = f"{what} as tokens of {reader.words}, at most {reader.longest}, padded to the longest"
    return text_task(parts, settings, reader, rows, collate, preprocessing=preprocessing, **rest)
