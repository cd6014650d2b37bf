"""Texts and pairs of texts: classification, and regression to one real number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from pipeline.base.batches import Axes, Inputs, Outputs
from pipeline.errors import ConfigError
from pipeline.task import Forward, correct, cross_entropy
from pipeline.tasks import metrics
from pipeline.tasks.huggingface.columns import Columns
from pipeline.tasks.huggingface.rows import (
    TARGET,
    Classes,
    DatasetTask,
    Reals,
    Rows,
    classes,
    data,
    encoded_parts,
    integers,
)
from pipeline.tasks.huggingface.settings import Count, Settings
from pipeline.tasks.huggingface.source import Parts
from pipeline.tasks.huggingface.text import tokens

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
LENGTH = "tokens"


class Texts(Settings):
    """The keys of every kind that reads texts."""

    tokenizer: str | None = Field(default=None, description="a name on the hub or a folder, mostly that of the model")
    vocabulary: int | None = Field(
        default=None, ge=50, description="instead of `tokenizer`: make one of so many tokens from the texts of train"
    )
    algorithm: tokens.Algorithm = Field(default="wordpiece", description="of `vocabulary`")
    lowercase: bool = Field(default=True, description="with `vocabulary`: make capitals small")
    max_length: int = Field(default=128, ge=2, description="tokens at most; longer texts are cut")
    multiple: Count = Field(default=1, description="pad each batch to a multiple of so many tokens; 8 suits GPUs")
    token_types: bool | None = Field(
        default=None,
        description="feed token_type_ids; for pairs where the tokenizer has them, unless given",
    )

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        if (self.tokenizer is None) == (self.vocabulary is None):
            raise ValueError("either `tokenizer`, such as the model's name, or `vocabulary`, a number of tokens")
        return self


class TextClassification(Texts):
    """Texts or pairs of texts, and classes."""

    metrics: tuple[Literal["f1", "matthews"], ...] = Field(default=(), description="beside the accuracy")


class TextRegression(Texts):
    """Texts or pairs of texts, and a real number."""

    range: tuple[float, float] | None = Field(
        default=None, description="smallest and largest value; they are learned as 0 to 1, and the score is in these"
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.range and self.range[0] >= self.range[1]:
            raise ValueError("range: a smaller and a larger number")
        return self


def classification(parts: Parts, columns: Columns, settings: TextClassification) -> DatasetTask:
    """Single-label classification of texts: accuracy is the score; F1 is of the second of two, else the mean."""
    target = classes(parts.whole, columns.target)
    average: Literal["binary", "macro"] = "binary" if len(target.names) == 2 else "macro"
    metric_functions = {"f1": partial(metrics.f1, average=average), "matthews": metrics.matthews}
    return _task(
        parts,
        columns,
        settings,
        target,
        loss=cross_entropy,
        score=correct,
        logits=True,
        output="logits",
        labels=target.names,
        metrics={name: metric_functions[name] for name in settings.metrics},
        kind="text_classification",
    )


def regression(parts: Parts, columns: Columns, settings: TextRegression) -> DatasetTask:
    """One real number a text: the mean squared error is the loss, and its negative the score of an example.

    That is no ratio scale, so there is no retention, and the drop stands in its place; Spearman's and Pearson's
    correlations are the metrics.
    """
    target = Reals(columns.target, *(settings.range or (0.0, 1.0)))
    return _task(
        parts,
        columns,
        settings,
        target,
        loss=squared_error,
        score=minus_squared_error,
        decode=one_number,
        output="logits",
        metrics={"spearman": metrics.spearman, "pearson": metrics.pearson},
        kind="text_regression",
    )


def squared_error(outputs: Outputs, targets: Tensor) -> Tensor:
    """Mean squared error of `logits` (N, 1) against real numbers (N,)."""
    return F.mse_loss(outputs["logits"].flatten(), targets)


def minus_squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Minus the squared error of each prediction (N,) against the real number (N,): 0 is best."""
    return -((predictions - targets) ** 2)


def one_number(forward: Forward, inputs: Inputs) -> Tensor:
    """The number (N,) that the model gives as `logits` (N, 1)."""
    logits = forward(inputs)["logits"]
    if logits[0].numel() != 1:
        raise ConfigError(f"`logits` has the shape {tuple(logits.shape)}", expected="one number an example, (N, 1)")
    return logits.flatten()


def tokenizer_for(parts: Parts, columns: Sequence[str], settings: Texts) -> Any:
    """The tokenizer that is named, or one of the texts of train."""
    if settings.tokenizer is not None:
        return tokens.opened(settings.tokenizer)
    return tokens.trained(parts.train, columns, settings.vocabulary or 0, settings.algorithm, settings.lowercase)


def made_by(settings: Texts, tokenizer: Any) -> str:
    """The tokenizer in words."""
    description = f"a {settings.algorithm} tokenizer of {len(tokenizer)} tokens made from train"
    return f"tokenizer {settings.tokenizer}" if settings.tokenizer else description


def checked_texts(texts: Sequence[str | None], column: str) -> Sequence[str]:
    """The texts. Raises ConfigError where one is missing."""
    if None in texts:
        raise ConfigError(f"a row has no text in `{column}`", fix="Leave such rows out of the dataset")
    return texts  # type: ignore[return-value]  # none of them is None


@dataclass(frozen=True)
class EncodeTexts:
    """Texts or pairs as token ids, and their targets."""

    texts: tuple[str, ...]
    target: Classes | Reals
    tokenizer: Any
    digest: str
    longest: int
    types: bool
    batch: int = 1000

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return (*self.texts, self.target.column)

    @property
    def key(self) -> Any:
        """What tells it apart."""
        return [self.texts, self.target.key, self.digest, self.longest, self.types]

    def features(self) -> dict[str, Any]:
        """What is kept, in the smallest integers that do: a mask is ones, and need not be."""
        from datasets import List, Value

        columns = {IDS: List(Value("int32"))} | ({TYPES: List(Value("int8"))} if self.types else {})
        return {**columns, TARGET: Value("int64" if isinstance(self.target, Classes) else "float32")}

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """A few rows."""
        texts = [checked_texts(rows[name], name) for name in self.texts]
        encoding = self.tokenizer(
            *texts, truncation=True, max_length=self.longest, return_token_type_ids=self.types, padding=False
        )
        if not all(encoding[IDS]):
            raise ConfigError("a text is empty, and the tokenizer adds nothing to it", fix="Leave such rows out")
        types = {TYPES: encoding[TYPES]} if self.types else {}
        return {IDS: encoding[IDS], **types, TARGET: self.target(rows[self.target.column])}


def read_text(row: Mapping[str, Any]) -> tuple[Inputs, Any]:
    """An example of a row: ids, a mask of ones, types where there are any; each int64 (L,)."""
    ids = integers(row[IDS])
    inputs = {IDS: ids, MASK: torch.ones_like(ids)}
    if TYPES in row:
        inputs[TYPES] = integers(row[TYPES])
    target = row[TARGET].as_py()
    return inputs, target if isinstance(target, int) else torch.tensor(target)


@dataclass(frozen=True)
class Pad:
    """Pads a batch to its longest example; equal names of axes get equal lengths.

    Args:
        fills: what each input is padded with.
        axes: the names of the inputs' varying axes, as `Task.axes`.
        multiple: lengths are multiples of it, as far as `longest` allows.
        longest: tokens at most.
    """

    fills: Mapping[str, int]
    axes: Axes
    multiple: int
    longest: int

    def __call__(self, rows: list[tuple[Inputs, Any]]) -> tuple[Inputs, Any]:
        """A list of examples -> (inputs (N, L), targets (N,))."""
        widths: dict[str, int] = {}
        for name, by_axis in self.axes.items():
            here = max(len(inputs[name]) for inputs, _ in rows)
            widths[by_axis[1]] = max(widths.get(by_axis[1], 0), here)
        widths = {axis: self.rounded(width) for axis, width in widths.items()}
        inputs = {
            name: padded([example[name] for example, _ in rows], widths[by_axis[1]], self.fills[name])
            for name, by_axis in self.axes.items()
        }
        return inputs, self.targets([target for _, target in rows])

    def targets(self, targets: list[Any]) -> Any:
        """The targets of a batch."""
        return default_collate(targets)

    def rounded(self, width: int) -> int:
        """The width of a batch whose longest example has so many tokens."""
        return max(width, min(-(-width // self.multiple) * self.multiple, self.longest))


def padded(values: Sequence[Tensor], width: int, fill: int) -> Tensor:
    """Values (L,) of several lengths as one (N, width)."""
    batch = values[0].new_full((len(values), width), fill)
    for row, value in zip(batch, values, strict=True):
        row[: len(value)] = value
    return batch


def longest_of(rows: Mapping[str, Rows], settings: Texts, collate: Pad) -> int:
    """The most tokens that a model is fed: `max_length` where it is given, else those of the longest text there is."""
    if "max_length" in settings.model_fields_set:
        return settings.max_length
    return collate.rounded(max(part.longest(IDS) for part in rows.values()))


@dataclass(frozen=True)
class Shown:
    """The text of one example, as the tokenizer reads its ids."""

    tokenizer: Any
    names: tuple[str, ...] = (IDS,)

    def __call__(self, inputs: Inputs) -> str:
        """The text, or the texts with a slash between."""
        return " / ".join(self.tokenizer.decode(inputs[name], skip_special_tokens=True) for name in self.names)


def _task(
    parts: Parts, columns: Columns, settings: Texts, target: Classes | Reals, *, kind: Any, **rest: Any
) -> DatasetTask:
    tokenizer = tokenizer_for(parts, columns.inputs, settings)
    longest = tokens.longest(tokenizer, settings.max_length)
    has_types = len(columns.inputs) == 2 and TYPES in tokenizer.model_input_names
    types = has_types if settings.token_types is None else settings.token_types
    digest = tokens.digest(tokenizer)
    encode = EncodeTexts(columns.inputs, target, tokenizer, digest, longest, types)
    names = (IDS, MASK, *([TYPES] if types else []))
    axes = {name: {1: LENGTH} for name in names}
    fills = {IDS: tokenizer.pad_token_id, MASK: 0, TYPES: 0}
    collate = Pad({name: fills[name] for name in names}, axes, settings.multiple, longest)
    rows = encoded_parts(parts, encode, read_text)
    dataset = data(rows, settings, collate, digest)
    what = " and ".join(f"`{name}`" for name in columns.inputs)
    return DatasetTask(
        **dataset.splits,
        **rest,
        axes=axes,
        tokenizer=tokenizer,
        show=Shown(tokenizer),
        preprocessing=f"{what} as tokens of {made_by(settings, tokenizer)}, at most {longest}, padded to the longest",
        kind=kind,
        longest={"max_length": longest_of(rows, settings, collate)},
        notes=(*parts.notes, *dataset.notes),
    )
