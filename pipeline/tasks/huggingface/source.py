"""A dataset of the hub or of a folder -> train, validation and test, each a table on disk that is mapped into memory.

With `streaming` the rows that are asked for are read one after the other into a file of their own, which is then
mapped like any other. So memory stays flat, and since the examples keep their numbers, pairs, teachers' caches and
resuming within an epoch work, which they would not on an iterable dataset.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from pipeline.base.data.hub import check_reachable
from pipeline.base.files import folder_digest
from pipeline.base.use import nearest
from pipeline.errors import ConfigError, is_exhausted
from pipeline.tasks.huggingface.settings import Role, Settings

if TYPE_CHECKING:
    from datasets import Dataset

SHARE = 0.1  # of train, for a part that the dataset has not
USUAL: dict[Role, tuple[str, ...]] = {"validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
LIBRARIES = ("datasets", "numpy", "pillow", "scipy", "tokenizers", "torch", "transformers")
AT_ONCE = 1000  # rows that a stream writes together
READERS = "datasets.packaged_modules"  # the loggers of what reads files


@dataclass(frozen=True)
class Parts:
    """Rows by what they are for, as they are in the dataset.

    Args:
        train, validation, test: the rows.
        whole: all rows of the part that train is of: what columns and labels are found from.
        notes: how they were made, where nobody said how.
    """

    train: "Dataset"
    validation: "Dataset"
    test: "Dataset"
    whole: "Dataset"
    notes: tuple[str, ...]

    def each(self, change: Callable[["Dataset"], "Dataset"]) -> "Parts":
        """The parts with all rows changed alike."""
        return Parts(change(self.train), change(self.validation), change(self.test), change(self.whole), self.notes)


def read(settings: Settings) -> Parts:
    """The three parts.

    Raises:
        ConfigError: there is no such dataset, or it has no such part.
    """
    check_reachable(settings.data, "datasets", "data")
    with quiet(), explained("data", settings.data):
        loaders = _stream(settings) if settings.streaming else _load(settings)
    chosen = roles(settings, list(loaders))
    shares = {role: share for role, share in chosen.items() if isinstance(share, float)}
    with quiet(), explained("data", settings.data):
        rows = {role: loaders[name](settings.most(role)) for role, name in chosen.items() if isinstance(name, str)}
    parts = {role: _limited(all_of_it, settings.most(role), settings.seed) for role, all_of_it in rows.items()}
    *portions, parts["train"] = _cut(parts["train"], list(shares.values()), settings.seed)
    parts |= dict(zip(shares, portions, strict=True))
    unasked = [role for role in shares if getattr(settings, role) is None]
    whence = f"of `{settings.train}`, drawn with seed {settings.seed}"
    notes = tuple(f"{role} is {shares[role]:.0%} {whence}" for role in unasked)
    for role, part in parts.items():
        if not len(part):
            raise ConfigError(f"there are no rows for {role}", where=settings.data, fix="Raise `limit` or the share")
    return Parts(parts["train"], parts["validation"], parts["test"], rows["train"], notes)


def roles(settings: Settings, names: Sequence[str]) -> dict[Role, str | float]:
    """For train, validation and test the name of a part of the dataset, or the share of train that it is.

    Args:
        settings: what is asked for.
        names: the parts that there are.

    Raises:
        ConfigError: there is no part of a name that is asked for, one would be used twice, or a limit has no part.
    """
    choices: dict[Role, str | float] = {"train": settings.train}
    for role, usual in USUAL.items():
        setting: str | float | None = getattr(settings, role)
        reserved_names = (settings.train, settings.validation, settings.test)
        there = [name for name in usual if name in names and name not in reserved_names]
        choices[role] = setting if setting is not None else there[0] if there else SHARE
    for role, name in choices.items():
        if isinstance(name, str) and name not in names:
            expected = f"one of {', '.join(names)}" + ("" if role == "train" else ", or a share of train such as 0.1")
            raise ConfigError(f"`{role}` is {name}{nearest(name, list(names))}", where=settings.data, expected=expected)
        if isinstance(name, float) and isinstance(settings.limit, dict) and role in settings.limit:
            fix = "Limit train, or change the share"
            raise ConfigError(f"`limit` has {role}, which is a share of train", where=settings.data, fix=fix)
    used = [name for name in choices.values() if isinstance(name, str)]
    if len(set(used)) < len(used):
        raise ConfigError(f"the parts are {choices}", where=settings.data, expected="each part once")
    return choices


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of `datasets`, and without the errors that its readers log before they raise them."""
    from datasets import disable_progress_bars, enable_progress_bars
    from datasets.utils import are_progress_bars_disabled

    before, handlers = are_progress_bars_disabled(), logging.getLogger("datasets").handlers
    disable_progress_bars()
    for handler in handlers:
        handler.addFilter(_is_news)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_news)
        if not before:
            enable_progress_bars()


def _is_news(record: logging.LogRecord) -> bool:
    """Whether nothing else tells it, as an error that is raised does; warnings, such as of a cache, are news."""
    return record.levelno != logging.ERROR or not record.name.startswith(READERS)


def kept_in() -> Path:
    """Where we keep what is made of datasets, beside what `datasets` keeps."""
    from datasets import config

    folder = Path(config.HF_DATASETS_CACHE) / "shrinkline"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fingerprint(*parts: Any) -> str:
    """SHA-256 of JSON values; names what was made of them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def code() -> str:
    """A digest of this folder's code and the libraries' versions: what others encoded is not read."""
    return fingerprint([*map(version, LIBRARIES)], folder_digest(Path(__file__).parent, "**/*.py"))


def _load(settings: Settings) -> dict[str, Any]:
    """A function for each part that gives its rows."""
    from datasets import DatasetDict, load_dataset, load_dataset_builder, load_from_disk
    from datasets.packaged_modules.audiofolder.audiofolder import AudioFolder

    folder = Path(settings.data)
    if (folder / "dataset_dict.json").is_file():
        dataset = load_from_disk(str(folder))
    elif isinstance(load_dataset_builder(settings.data, settings.config, revision=settings.revision), AudioFolder):
        # As a table it would be encoded by torchcodec, which reading the files as they are does not need.
        return {name: lambda _, part=part: part(None) for name, part in _stream(settings).items()}
    else:
        dataset = load_dataset(settings.data, settings.config, revision=settings.revision)
    parts: DatasetDict = dataset
    return {str(name): lambda _, rows=rows: rows for name, rows in parts.items()}


def _stream(settings: Settings) -> dict[str, Any]:
    """A function for each part that reads at most so many rows into a file."""
    from datasets import load_dataset_builder

    if (Path(settings.data) / "dataset_dict.json").is_file():
        problem = f"{settings.data} is one that save_to_disk wrote, which is mapped"
        raise ConfigError(problem, fix="Leave out `streaming`")
    builder = load_dataset_builder(settings.data, settings.config, revision=settings.revision)
    parts = builder.as_streaming_dataset()
    identity = (settings.data, builder.config_id, builder.hash)
    return {
        str(name): lambda most, name=name, rows=rows: _written(rows, most, fingerprint(identity, str(name), most))
        for name, rows in parts.items()
    }


def _written(rows: Any, most: int | None, name: str) -> "Dataset":
    """The first rows of a stream, in a file that is kept under `name`."""
    from datasets import Dataset
    from datasets.arrow_writer import ArrowWriter

    path = kept_in() / f"stream-{name}.arrow"
    if not path.is_file():
        rows = rows if most is None else rows.take(most)
        making = path.with_name(f"{path.name}-{uuid4().hex}")
        with ArrowWriter(path=str(making), features=rows.features) as writer:
            for table in rows.with_format("arrow").iter(AT_ONCE):
                writer.write_table(table)
            writer.finalize()
        making.rename(path)
    return Dataset.from_file(str(path))


def _limited(rows: "Dataset", most: int | None, seed: int) -> "Dataset":
    if most is None or most >= len(rows):
        return rows
    return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:most]))


def _cut(rows: "Dataset", shares: list[float], seed: int) -> list["Dataset"]:
    """Random parts with these shares, and the rest as the last; each in the order of the rows."""
    if not shares:
        return [rows]
    order = np.random.default_rng(seed).permutation(len(rows))
    ends = [round(end * len(rows)) for end in np.cumsum(shares)]
    return [rows.select(np.sort(part)) for part in np.split(order, ends)]


@contextmanager
def explained(key: str, place: str) -> Iterator[None]:
    """Says in one line why the dataset that a key of the task names cannot be read."""
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if is_exhausted(error):
            raise
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        problem = f"`{key}` is {place}, and it cannot be read: {reason[0].rstrip('.')}"
        expected = "the name of a dataset on the Hugging Face hub that can be reached, or a folder of "
        expected += "parquet, JSON lines, CSV, images or sounds"
        raise ConfigError(problem, expected=expected, fix=f"Give a folder with --set task.{key}=FOLDER") from error
