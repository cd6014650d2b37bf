"""Encoded examples in Arrow files, mapped into memory: what a row holds is read when it is asked for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.base.batches import Inputs
from pipeline.build.probe import see
from pipeline.errors import ConfigError, blame
from pipeline.task import Split, Task
from pipeline.tasks.huggingface.settings import Kind, Settings
from pipeline.tasks.huggingface.source import Parts, code, fingerprint, kept_in, quiet

if TYPE_CHECKING:
    from datasets import Dataset

Read = Callable[[Mapping[str, Any]], tuple[Inputs, Any]]


@dataclass(frozen=True)
class Encoding:
    """How rows of a dataset become what is kept on disk.

    Args:
        encode: a few rows as lists by column -> what is kept of them.
        columns: those that it reads.
        types: of what it makes, such as int64, and int64[] for a list.
        key: JSON that tells it apart from those of the same types.
        batch: how many rows it is given at once.
    """

    encode: Callable[[dict[str, list[Any]]], dict[str, list[Any]]]
    columns: tuple[str, ...]
    types: Mapping[str, str]
    key: Any
    batch: int = 1000


class Rows:
    """Examples of an encoded table; a map-style dataset that loaders' processes map anew, not copy.

    Args:
        table: what `encoded` gave.
        read: makes an example of a row of Arrow values by name; it can be pickled.
    """

    def __init__(self, table: "Dataset", read: Read) -> None:
        self.table, self.read = table, read
        self._open()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Inputs, Any]:
        """The example (inputs, target)."""
        return self.read({name: column[index] for name, column in self.columns.items()})

    def lengths(self) -> list[int]:
        """How many numbers each row holds in lists: its tokens."""
        import pyarrow as pa
        import pyarrow.compute as pc

        lists = [column for column in self.columns.values() if pa.types.is_list(column.type)]
        counts = [pc.list_value_length(column).to_numpy() for column in lists]
        return [int(count) for count in np.sum(counts, axis=0)] if counts else [0] * len(self)

    def longest(self, name: str) -> int:
        """The most numbers that a row holds in a list whose column begins with `name`: its tokens."""
        import pyarrow.compute as pc

        lists = [column for key, column in self.columns.items() if key.startswith(name)]
        return max((pc.max(pc.list_value_length(column)).as_py() or 0 for column in lists), default=0)

    def _open(self) -> None:
        # Read past the library's formatting, which takes ten times as long for a row.
        self.columns = {name: self.table.data.column(name) for name in self.table.column_names}

    def __getstate__(self) -> dict[str, Any]:
        return {"table": self.table, "read": self.read}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def encoded(rows: "Dataset", encoding: Encoding, where: str) -> "Dataset":
    """The encoded rows, kept on disk by what they are made of; made once.

    Args:
        rows: as the dataset has them.
        encoding: what to make of them.
        where: which rows they are, for messages.
    """
    from datasets import Features, List, Value

    input_rows = rows.select_columns(list(encoding.columns))
    name = fingerprint(rows._fingerprint, encoding.types, encoding.key, code())
    values = {key: (Value(type_.removesuffix("[]")), type_.endswith("[]")) for key, type_ in encoding.types.items()}
    with quiet(), blame(ConfigError, where):
        return input_rows.map(
            encoding.encode,
            batched=True,
            batch_size=encoding.batch,
            remove_columns=input_rows.column_names,
            features=Features({key: List(value) if is_list else value for key, (value, is_list) in values.items()}),
            new_fingerprint=name,
            cache_file_name=str(kept_in() / f"rows-{name}.arrow"),  # and not in the folder of the data
        )


def encoded_parts(parts: Parts, encoding: Encoding, read: Read) -> dict[str, Rows]:
    """Train, validation and test, encoded."""
    return {name: Rows(encoded(getattr(parts, name), encoding, name), read) for name in ("train", "validation", "test")}


def integers(value: Any) -> Tensor:
    """An Arrow list of whole numbers as int64 (L,)."""
    return torch.from_numpy(value.values.to_numpy(zero_copy_only=False).astype(np.int64))


@dataclass(frozen=True)
class DatasetTask(Task):
    """A task on a dataset of Hugging Face.

    Args:
        kind: what is learned; the model is made for it.
        longest: the most tokens of a text, by the key that cuts them: what it says, or what there is at most.
        notes: what was done to the data that nobody asked for by name.
    """

    kind: Kind = "text_classification"
    longest: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def dataset_task(
    parts: Parts,
    settings: Settings,
    rows: Mapping[str, Rows],
    collate: Callable[[list[Any]], tuple[Any, Any]] | None = None,
    fingerprint: str | None = None,
    **rest: Any,
) -> DatasetTask:
    """The task of encoded rows.

    Args:
        parts: what the rows were; with notes.
        settings: say what becomes of examples of train and validation that are in test too.
        rows: train, validation and test.
        collate, fingerprint: see `Split`.
        rest: more of `DatasetTask`.

    Raises:
        ConfigError: all examples of train or validation are in test too.
    """
    splits: dict[str, Any] = {
        name: Split(part, collate, fingerprint, part.lengths() if collate else None) for name, part in rows.items()
    }
    notes = () if settings.overlap == "error" else tuple(_drop_overlap(splits, settings))  # else a build refuses it
    return DatasetTask(**splits, **rest, notes=(*parts.notes, *notes))


def _drop_overlap(splits: dict[str, Split], settings: Settings) -> Iterator[str]:
    """Take examples that are in test out of train and validation, in place; gives what to say of it."""
    of_test = set(see("test", splits["test"]).hashes)
    for name in ("train", "validation"):
        hashes = see(name, splits[name]).hashes
        indices = [i for i, digest in enumerate(hashes) if digest not in of_test]
        if not indices:
            raise ConfigError(f"all {name} examples are in test too", where=settings.data, fix="Take other parts")
        if len(indices) < len(hashes):
            yield f"{len(hashes) - len(indices)} of {len(hashes)} {name} examples are left out, for test has them"
            splits[name] = replace(splits[name].select(indices), fingerprint=splits[name].fingerprint)
