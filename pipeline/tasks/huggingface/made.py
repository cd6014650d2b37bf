"""What every kind of task is made of: splits of encoded rows, without what is in test too where that is asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import ConfigError
from pipeline.probe import see
from pipeline.task import Split, Task
from pipeline.tasks.huggingface.rows import Rows
from pipeline.tasks.huggingface.settings import Kind, Settings


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


@dataclass(frozen=True)
class Data:
    """The splits of a task, and what is to be said of them."""

    splits: Mapping[str, Any]
    notes: tuple[str, ...]


def data(
    rows: Mapping[str, Rows],
    settings: Settings,
    collate: Callable[[list[Any]], tuple[Any, Any]] | None = None,
    fingerprint: str | None = None,
) -> Data:
    """The splits of encoded rows.

    Args:
        rows: train, validation and test.
        settings: say what becomes of examples of train and validation that are in test too.
        collate, fingerprint: see `Split`.
    """
    splits = {
        name: Split(part, collate, fingerprint, part.lengths() if collate else None) for name, part in rows.items()
    }
    if settings.overlap == "error":  # building a chain finds and refuses them
        return Data(splits, ())
    of_test = set(see("test", splits["test"]).hashes)
    notes = []
    for name in ("train", "validation"):
        hashes = see(name, splits[name]).hashes
        indices = [i for i, digest in enumerate(hashes) if digest not in of_test]
        if not indices:
            raise ConfigError(f"all {name} examples are in test too", where=settings.data, fix="Take other parts")
        if len(indices) < len(hashes):
            notes.append(
                f"{len(hashes) - len(indices)} of {len(hashes)} {name} examples are left out, for test has them"
            )
            splits[name] = replace(splits[name].select(indices), fingerprint=fingerprint)
    return Data(splits, tuple(notes))
