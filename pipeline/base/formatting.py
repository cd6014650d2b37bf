"""Numbers and names as people read them: bytes, counts, intervals, lists."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from pipeline.base.estimate import Estimate


def shown(path: Path) -> Path:
    """A path as short as it can be told from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def bytes_text(count: float) -> str:
    """1,234 -> 1.2 kB; thousands, as the budget counts."""
    return _in_thousands(count, (" B", " kB", " MB", " GB"))


def count_text(count: float) -> str:
    """14,195,200 -> 14.2 M."""
    return _in_thousands(count, ("", " k", " M", " G", " T"))


def _in_thousands(count: float, units: Sequence[str]) -> str:
    power = 0
    while count >= 1000 and power < len(units) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.{min(power, 1)}f}{units[power]}"


def interval_text(estimate: BaseModel | dict[str, Any] | None, digits: int = 3) -> str:
    """0.987 [0.970, 1.001], of what has a value and may have low and high; a dash where there is none."""
    value = estimate.model_dump() if isinstance(estimate, BaseModel) else estimate
    if not value or value.get("value") is None:
        return "-"
    if value.get("low") is None:
        return f"{value['value']:.{digits}f}"
    return f"{value['value']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def milliseconds_text(figure: Estimate) -> str:
    """2.01 ms [1.9, 2.1]; without an interval where that is the figure itself."""
    value, low, high = (
        f"{one:,.0f}" if one >= 1000 else f"{one:.4g}" for one in (figure.value, figure.low, figure.high)
    )
    return f"{value} ms" if figure.low == figure.high else f"{value} ms [{low}, {high}]"


def runtime_text(name: str, settings: Iterable[object], host: str | None, between: str = " ") -> str:
    """A runtime with the values of its settings and with its host, where it has some: openvino f32."""
    return between.join([name, *map(str, settings), *([f"on {host}"] if host else [])])


def difference_text(difference: Estimate, *, shares: bool, sign: str = "") -> str:
    """0.2 points [-0.9, 1.3]; of scores that are no shares 0.012 of score [-0.01, 0.03].

    Args:
        difference: of scores.
        shares: whether these are from 0 to 1, so that a hundredth is a point.
        sign: "+" shows that of a value above zero too.
    """
    value, low, high = difference.value, difference.low, difference.high
    if not shares:
        return f"{value:{sign}.4g} of score [{low:.4g}, {high:.4g}]"
    value, low, high = (round(100 * number, 1) + 0.0 for number in (value, low, high))  # a zero without a sign
    return f"{value:{sign}.1f} points [{low:.1f}, {high:.1f}]"


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def flow(value: object) -> str:
    """A value in one line of YAML: {use: models.py:net, width: 16}; what YAML has no word for as its text."""
    plain = to_jsonable_python(value, fallback=str)
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return str(text).removesuffix("...\n").strip()
