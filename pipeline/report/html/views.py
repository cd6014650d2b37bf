"""What the templates are given: plain values, so that a template decides nothing but the looks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
"""A plotly figure as JSON; its colours are names of the style sheet, such as `var(--accent)`."""


@dataclass(frozen=True)
class Link:
    """A cell that leads to a page beside this one."""

    text: str
    href: str


@dataclass(frozen=True)
class Mark:
    """A cell with a word and its colour; `kind` is a class of the style sheet."""

    text: str
    kind: str


@dataclass(frozen=True)
class Short:
    """A cell that shows the front of a long value."""

    text: str
    whole: str


Cell = str | Link | Mark | Short


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row; `words` are the columns that are not figures."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Plot:
    """One drawing of a figure that may have several to choose from."""

    name: str
    figure: Json
    caption: str = ""


@dataclass(frozen=True)
class Area:
    """A rectangle of a treemap.

    Args:
        left, top, width, height: in percent of what it lies in.
        color: 1 to 6, a series of the style sheet.
        name, text: what is written in it, as far as there is room.
        says: what the pointer shows of it.
        size: in bytes.
        inside: rectangles in it, in percent of it.
    """

    left: float
    top: float
    width: float
    height: float
    color: int
    name: str
    text: str
    says: str
    size: int
    inside: Sequence["Area"] = ()


@dataclass(frozen=True)
class Figure:
    """A figure: its drawings, or the areas of a treemap, what they show in words, and the same as a table."""

    key: str
    label: str
    caption: str
    plots: Sequence[Plot]
    table: Table
    choose: str = "Show"
    areas: Sequence[Area] = ()


@dataclass(frozen=True)
class Tile:
    """A headline figure: what it is, what it is now, what it was, and what that means."""

    label: str
    value: str
    before: str = ""
    note: str = ""


@dataclass(frozen=True)
class GateView:
    """A limit of the budget in words."""

    name: str
    kind: str
    word: str
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Judgement:
    """The verdict in a word and a sentence; `kind` chooses icon and colour."""

    kind: str
    word: str
    sentence: str
    gates: Sequence[GateView] = ()


@dataclass(frozen=True)
class Details:
    """Something to unfold: tables under a title."""

    title: str
    tables: Sequence[Table]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page, as the list of contents names it; `parts` are what its block of the template shows."""

    key: str
    title: str
    parts: dict[str, Any] = field(default_factory=dict)
