"""Rectangles as large as their bytes as plotly figures: by layer, and by encoding."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

from pipeline.base.formatting import bytes_text
from pipeline.report.html.plots.charts import CLEAR, SERIES, SURFACE, figure_json
from pipeline.report.html.text import label
from pipeline.report.html.views import Json

MOST_PARTS = 60

Part = tuple[str, str, int]
"""A part of a file: its name, its kind, which chooses the colour, and its bytes."""


def treemap(parts: Sequence[Part], kinds: Sequence[str], grouped: bool = False) -> Json:
    """A rectangle a part, as large as its bytes, with the colour of its kind.

    Args:
        parts: the largest first.
        kinds: all kinds, which choose the colours.
        grouped: whether those of a kind lie together, under its name.
    """
    shown = merged(parts)
    whole = sum(size for _, _, size in shown) or 1
    groups = [_group(kind, shown, whole) for kind in kinds if any(_is_in(part, kind) for part in shown) and grouped]
    tiles = groups + [_tile(str(i), part, whole, grouped) for i, part in enumerate(shown)]
    columns = {field.name: [getattr(tile, field.name) for tile in tiles] for field in fields(_Tile)}
    colors = {kind: SERIES[i % len(SERIES)] for i, kind in enumerate(kinds)}
    trace = {
        "type": "treemap",
        "branchvalues": "total",
        "textinfo": "label+text",
        "hoverinfo": "text",
        "marker": {
            "colors": [colors[kind] for kind in columns.pop("kind")],
            "line": {"color": SURFACE, "width": 2},
            "pad": {"t": 20, "l": 3, "r": 3, "b": 3} if grouped else dict.fromkeys("tlrb", 0),
        },
        **columns,
        "textfont": {"color": "var(--on-series)", "size": 13},
        "tiling": {"pad": 2},
        "pathbar": {"visible": False},
        "root": {"color": CLEAR},
    }
    uniform = {"minsize": 10, "mode": "hide"}
    return figure_json([trace], {}, {}, height=300, margin={"l": 0, "r": 0, "t": 4, "b": 4}, uniformtext=uniform)


def merged(parts: Sequence[Part]) -> list[Part]:
    """The largest parts, and all others as one a kind."""
    rest = Counter[str]()
    for _, kind, size in parts[MOST_PARTS:]:
        rest[kind] += size
    return [*parts[:MOST_PARTS], *((f"all others, {kind}", kind, size) for kind, size in rest.items())]


@dataclass(frozen=True)
class _Tile:
    """A rectangle: its kind, and the rest as plotly names what it is given of each."""

    kind: str
    ids: str
    parents: str
    labels: str
    text: str
    hovertext: str
    values: int


def _tile(key: str, part: Part, whole: int, grouped: bool) -> _Tile:
    name, kind, size = part
    inside = grouped and _is_in(part, kind)
    lines = [label(kind, 16)] * (kind != name and not inside) + [bytes_text(size)]
    says = f"<b>{label(name, 60)}</b><br>{label(kind)}<br>{bytes_text(size)}, {size / whole:.1%}"
    return _Tile(kind, key, _key(kind) if inside else "", label(name, 24), "<br>".join(lines), says, size)


def _group(kind: str, parts: Sequence[Part], whole: int) -> _Tile:
    total = sum(part[2] for part in parts if _is_in(part, kind))
    says = f"<b>{label(kind, 60)}</b><br>{bytes_text(total)}, {total / whole:.1%}"
    return _Tile(kind, _key(kind), "", f"{label(kind, 20)} {bytes_text(total)}", "", says, total)


def _is_in(part: Part, kind: str) -> bool:
    """Whether a part lies in the group of a kind; what is the only one of its kind has that name and lies alone."""
    return part[1] == kind != part[0]


def _key(kind: str) -> str:
    """The id of a group, which is none of a part's."""
    return f"of {kind}"
