"""A run or a comparison as Python code and notebooks look at it: figures, absolute paths, the table, the page."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.records.comparison import ComparisonRecord
from pipeline.records.parts.models import ModelRecord
from pipeline.records.record import Record
from pipeline.report.terminal import show, show_comparison

WIDTH = 160  # characters, in which each row of a table has one line
HEIGHT = 900  # pixels of the page within a notebook


@dataclass(frozen=True, repr=False)
class Shown:
    """A record, and how it is shown: its text is what a terminal shows, and a notebook shows the page."""

    record: Any

    @property
    def folder(self) -> Path:
        """Where everything is."""
        return Path(self.record.folder)

    @property
    def report(self) -> Path:
        """The page to look at and to share."""
        return self.folder / "report.html"

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH)
        self._print(console)
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    def _repr_html_(self) -> str:
        """The page without the figures that need a script, in a frame of its own; as text where frames are left out."""
        from pipeline.report.html import page  # templates take their time

        source = escape(page.excerpt(self.record))
        frame = f'<iframe srcdoc="{source}" style="width:100%;height:{HEIGHT}px;border:0"></iframe>'
        return f"{frame}<details><summary>as text</summary><pre>{escape(repr(self))}</pre></details>"

    def _print(self, console: Console) -> None:
        raise NotImplementedError


class Result(Shown):
    """What a run came to.

    `record` has every figure, as record.json, with absolute paths.
    """

    record: Record

    @property
    def file(self) -> Path | None:
        """The file to deploy; None where the run failed before there was one."""
        return Path(self.record.final.file) if self.record.final and not self.record.failure else None

    @property
    def verdict(self) -> str | None:
        """pass, fail or inconclusive; None without a budget."""
        return self.record.verdict

    def _print(self, console: Console) -> None:
        show(self.record, console)


class Compared(Shown):
    """What a comparison came to; `record` is as comparison.json."""

    record: ComparisonRecord

    @property
    def choice(self) -> str | None:
        """The strategy to take; None where none keeps what is asked."""
        return self.record.choice

    def _print(self, console: Console) -> None:
        show_comparison(self.record, console)


def result_of(record: Record) -> Result:
    """A run with its paths absolute."""
    folder = Path(record.folder).resolve()

    def placed(model: Any) -> dict[str, Any]:
        paths: dict[str, Any] = {name: str(folder / getattr(model, name)) for name in ("folder", "file", "predictions")}
        return paths | {"digests": {str(folder / name): digest for name, digest in model.digests.items()}}

    def absolute(model: ModelRecord) -> Any:
        compared = {
            name: other.model_copy(update=placed(other)) for name, other in getattr(model, "comparisons", {}).items()
        }
        return model.model_copy(update={**placed(model), **({"comparisons": compared} if compared else {})})

    place: Callable[[ModelRecord], Any] = absolute
    changes = {"baseline": place(record.baseline) if record.baseline else None, "stages": [*map(place, record.stages)]}
    return Result(record.model_copy(update=changes))
