"""GitHub-flavoured Markdown in which text from elsewhere stays text.

A document is a list of pieces: a line of a table or a list, a paragraph, a whole code block. It is cut between them.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate

LONGEST = 60_000  # characters; GitHub takes up to 65,536 in a comment
LONGEST_VALUE = 600
MOST_ITEMS = 50

_CUT = "\n*Cut here: the whole is in report.html and record.json.*\n"
_SPECIAL = re.compile(r"[\\`*\[~]|(?<![^\W_])_|_(?![^\W_])")
_FIRST = re.compile(r"^(\d*)([#+=.)-])")  # what makes a heading or a list where it begins a line
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "$": "<span>$</span>"}  # $...$ is mathematics


def capped(pieces: Iterable[str], longest: int = LONGEST) -> str:
    """The pieces one after the other, as many as fit in `longest` characters; where some do not, it says so."""
    whole = list(pieces)
    if sum(map(len, whole)) <= longest:
        return "".join(whole)
    ends = accumulate(map(len, whole))
    return "".join(piece for piece, end in zip(whole, ends, strict=True) if end <= longest - len(_CUT)) + _CUT


def escaped(value: object) -> str:
    """A value as text in one line that Markdown, a table and HTML leave as it is; a very long one is shortened."""
    text = " ".join(str(value).split())
    text = text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} …"
    text = _FIRST.sub(r"\1\\\2", _SPECIAL.sub(r"\\\g<0>", text))
    return "".join(_HTML.get(character, character) for character in text)


def code(text: str) -> str:
    """A code span outside of tables, also of text with backticks."""
    line = " ".join(text.split())
    fence = "`" * (_longest_run(line) + 1)
    padded = f" {line} " if line.startswith("`") or line.endswith("`") else line
    return f"{fence}{padded}{fence}"


def block(text: str, language: str = "") -> list[str]:
    """A fenced block as one piece, also of text with fences."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return [f"{fence}{language}\n{text}\n{fence}\n\n"]


def heading(text: str, level: int = 3) -> list[str]:
    """A heading of text that is Markdown already."""
    return [f"{'#' * level} {text}\n\n"]


def paragraph(text: str) -> list[str]:
    """A paragraph of text that is Markdown already."""
    return [f"{text}\n\n"]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], texts: Iterable[int] = (0,)) -> list[str]:
    """A table whose cells are Markdown already; the columns at `texts` stand left, the others right."""
    left_columns = set(texts)
    rule = ["---" if i in left_columns else "---:" for i in range(len(columns))]
    head = _row(columns) + _row(rule)
    return [head, *map(_row, rows), "\n"]


def items(title: str, texts: Sequence[str]) -> list[str]:
    """A headed list of foreign text; nothing where it is empty, and the number of those that are left out."""
    if not texts:
        return []
    more = [f"- and {len(texts) - MOST_ITEMS:,} more\n"] if len(texts) > MOST_ITEMS else []
    return [*heading(title), *(f"- {escaped(text)}\n" for text in texts[:MOST_ITEMS]), *more, "\n"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
