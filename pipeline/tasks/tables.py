"""A dataset of the Hugging Face hub or of a folder, for a task of one's own: its parts, and rows with known columns."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.source import explained

if TYPE_CHECKING:
    from datasets import Dataset


def parts(path: str, needed: Iterable[str] = ("train",)) -> dict[str, "Dataset"]:
    """The parts of a dataset by name, such as train and test; each is mapped into memory, not read.

    Args:
        path: a name on the hub, or a folder, such as of parquet files.
        needed: names that must be there.

    Raises:
        ConfigError: there is nothing to read, or it lacks a part.
    """
    from datasets import load_dataset

    with explained("path", path):
        dataset: Any = load_dataset(path)
    _require(f"{path} has the parts", list(dataset), needed)
    return dict(dataset)


def rows(part: "Dataset", columns: Iterable[str], path: str, limit: int | None = None) -> "Dataset":
    """The first rows of a part, at most `limit`. Raises ConfigError, naming `path`, where it lacks a column."""
    _require(f"{path} has the columns", part.column_names, columns)
    return part.select(range(min(len(part), limit or len(part))))


def _require(prefix: str, there: list[str], needed: Iterable[str]) -> None:
    if missing := sorted(set(needed) - set(there)):
        raise ConfigError(f"{prefix} {', '.join(there)}", where="task", expected=f"also {' and '.join(missing)}")
