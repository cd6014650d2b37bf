"""What all tasks on texts share: settings, tokenizer, padding, and how they become a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator
from torch import Tensor
from torch.utils.data import default_collate

from pipeline.base.batches import Axes, Inputs
from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.rows import DatasetTask, Rows, dataset_task
from pipeline.tasks.huggingface.settings import Count, Settings
from pipeline.tasks.huggingface.source import Parts
from pipeline.tasks.huggingface.text import tokens

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
LENGTH = "tokens"


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] >= ends[1]:
        raise ValueError("a smaller and a larger number")
    return ends


Range = Annotated[tuple[float, float], AfterValidator(_rising)]


class Texts(Settings):
    """The keys of every kind that reads texts."""

    tokenizer: str | None = Field(None, description="a name on the hub or a folder, mostly that of the model")
    vocabulary: int | None = Field(
        None, ge=50, description="instead of `tokenizer`: make one of so many tokens from the texts of train"
    )
    algorithm: tokens.Algorithm = Field("wordpiece", description="of `vocabulary`")
    lowercase: bool = Field(True, description="with `vocabulary`: make capitals small")
    max_length: int = Field(128, ge=2, description="tokens at most; longer texts are cut")
    multiple: Count = Field(1, description="pad each batch to a multiple of so many tokens; 8 suits GPUs")
    token_types: bool | None = Field(
        None, description="feed token_type_ids; for pairs where the tokenizer has them, unless given"
    )

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        if (self.tokenizer is None) == (self.vocabulary is None):
            raise ValueError("either `tokenizer`, such as the model's name, or `vocabulary`, a number of tokens")
        return self


@dataclass(frozen=True)
class Reader:
    """A tokenizer.

    Args:
        tokenizer: a fast one that can pad.
        words: what it is, for people.
        digest: tells it apart from those that give other ids.
        longest: tokens of a text at most.
    """

    tokenizer: Any
    words: str
    digest: str
    longest: int

    @property
    def key(self) -> Any:
        """What tells it apart."""
        return [self.digest, self.longest]

    def __call__(self, rows: Mapping[str, Sequence[str | None]], *columns: str, **arguments: Any) -> Any:
        """What the tokenizer gives for texts or pairs of texts, cut. Raises ConfigError where one is missing."""
        texts = [checked_texts(rows[name], name) for name in columns]
        return self.tokenizer(*texts, truncation=True, max_length=self.longest, **arguments)


def reader_for(parts: Parts, columns: Sequence[str], settings: Texts) -> Reader:
    """The tokenizer that is named, or one of the texts of train."""
    if settings.tokenizer is not None:
        tokenizer, words = tokens.opened(settings.tokenizer), f"tokenizer {settings.tokenizer}"
    else:
        size, algorithm = settings.vocabulary or 0, settings.algorithm
        tokenizer = tokens.trained(parts.train, columns, size, algorithm, settings.lowercase)
        words = f"a {algorithm} tokenizer of {len(tokenizer)} tokens made from train"
    return Reader(tokenizer, words, tokens.digest(tokenizer), tokens.longest(tokenizer, settings.max_length))


def checked_texts(texts: Sequence[str | None], column: str) -> Sequence[str]:
    """The texts. Raises ConfigError where one is missing."""
    if None in texts:
        raise ConfigError(f"a row has no text in `{column}`", fix="Leave such rows out of the dataset")
    return texts  # type: ignore[return-value]  # none of them is None


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
            widths[by_axis[1]] = max(widths.get(by_axis[1], 0), *(len(inputs[name]) for inputs, _ in rows))
        widths = {axis: self.rounded(width) for axis, width in widths.items()}
        inputs = {
            name: padded([example[name] for example, _ in rows], widths[by_axis[1]], self.fills[name])
            for name, by_axis in self.axes.items()
        }
        return inputs, default_collate([target for _, target in rows])

    def rounded(self, width: int) -> int:
        """The width of a batch whose longest example has so many tokens."""
        return max(width, min(-(-width // self.multiple) * self.multiple, self.longest))


def padded(values: Sequence[Tensor], width: int, fill: int) -> Tensor:
    """Values (L,) of several lengths as one (N, width)."""
    batch = values[0].new_full((len(values), width), fill)
    for row, value in zip(batch, values, strict=True):
        row[: len(value)] = value
    return batch


def text_of(tokenizer: Any, names: Sequence[str], inputs: Inputs) -> str:
    """The text of one example, or its texts with a slash between, as the tokenizer reads the ids of these inputs."""
    return " / ".join(tokenizer.decode(inputs[name], skip_special_tokens=True) for name in names)


def text_task(
    parts: Parts, settings: Texts, reader: Reader, rows: Mapping[str, Rows], collate: Pad, **rest: Any
) -> DatasetTask:
    """A task on texts.

    Args:
        parts, settings, rows: as in `dataset_task`.
        reader: reads the texts.
        collate: makes batches of examples.
        rest: more of `DatasetTask`.
    """
    most = settings.max_length
    if "max_length" not in settings.model_fields_set:  # else those of the longest text there is
        most = collate.rounded(max(part.longest(IDS) for part in rows.values()))
    return dataset_task(
        parts,
        settings,
        rows,
        collate,
        reader.digest,
        axes=collate.axes,
        tokenizer=reader.tokenizer,
        show=partial(text_of, reader.tokenizer, [name for name in collate.axes if name.startswith(IDS)]),
        **{**rest, "longest": {"max_length": most, **rest.get("longest", {})}},
    )
