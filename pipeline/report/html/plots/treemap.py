"""Rectangles as large as their bytes: by layer, and by encoding.

They are laid out here and drawn by the style sheet, in percent of what they lie in, so that they fit any screen.

Reference: Bruls, Huizing and van Wijk: Squarified Treemaps, 2000, as squarify has it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from squarify import squarify

from pipeline.base.formatting import bytes_text
from pipeline.report.html.text import shortened
from pipeline.report.html.views import Area

MOST_PARTS = 60
SERIES = 6  # colours of the style sheet
WIDTH, HEIGHT = 240.0, 100.0  # for which rectangles are made square; a figure is about so on a wide screen

Part = tuple[str, str, int]
"""A part of a file: its name, its kind, which chooses the colour, and its bytes."""


def treemap(parts: Sequence[Part], kinds: Sequence[str], grouped: bool = False) -> list[Area]:
    """A rectangle a part, as large as its bytes, with the colour of its kind.

    Args:
        parts: the largest first; those without bytes are left out.
        kinds: all kinds, which choose the colours.
        grouped: whether those of a kind lie together, under its name.
    """
    shown = merged([part for part in parts if part[2] > 0])
    whole = sum(size for _, _, size in shown)
    colors = {kind: i % SERIES + 1 for i, kind in enumerate(kinds)}
    members = {kind: [part for part in shown if grouped and _is_in(part, kind)] for kind in kinds}
    alone = [part for part in shown if not grouped or not _is_in(part, part[1])]
    groups = [(kind, kind, _total(members[kind])) for kind in kinds if members[kind]]
    areas = []
    for part, place in _places([*groups, *alone], WIDTH, HEIGHT):
        inside = _inside(members[part[1]], place, colors, whole) if part in groups else []
        areas.append(_area(part, place, (WIDTH, HEIGHT), colors, whole, inside))
    return areas


def merged(parts: Sequence[Part]) -> list[Part]:
    """The largest parts, and all others as one a kind."""
    rest = Counter[str]()
    for _, kind, size in parts[MOST_PARTS:]:
        rest[kind] += size
    return [*parts[:MOST_PARTS], *((f"all others, {kind}", kind, size) for kind, size in rest.items())]


Place = tuple[float, float, float, float]
"""Left, top, width and height."""


def _places(parts: Sequence[Part], width: float, height: float) -> list[tuple[Part, Place]]:
    """Where each part lies in a rectangle of that size, the largest first."""
    ordered = sorted(parts, key=lambda part: -part[2])
    scale = width * height / max(_total(ordered), 1)
    boxes = squarify([part[2] * scale for part in ordered], 0, 0, width, height)
    return [(part, (box["x"], box["y"], box["dx"], box["dy"])) for part, box in zip(ordered, boxes, strict=True)]


def _inside(parts: Sequence[Part], place: Place, colors: Mapping[str, int], whole: int) -> list[Area]:
    """The rectangles of a group, in percent of it."""
    size = place[2:]
    return [_area(part, spot, size, colors, whole) for part, spot in _places(parts, *size)]


def _area(
    part: Part,
    place: Place,
    within: tuple[float, float],
    colors: Mapping[str, int],
    whole: int,
    inside: Sequence[Area] = (),
) -> Area:
    name, kind, size = part
    left, top, width, height = (100 * length / within[i % 2] for i, length in enumerate(place))
    says = [shortened(name, 60), *([kind] if kind != name else []), f"{bytes_text(size)}, {size / whole:.1%}"]
    words = shortened(name, 24), bytes_text(size), "\n".join(says)
    return Area(left, top, width, height, colors[kind], *words, size, inside)


def _total(parts: Sequence[Part]) -> int:
    return sum(size for _, _, size in parts)


def _is_in(part: Part, kind: str) -> bool:
    """Whether a part lies in the group of a kind; what is the only one of its kind has that name and lies alone."""
    return part[1] == kind != part[0]
