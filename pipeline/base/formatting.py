"""Numbers as people read them: bytes, counts, intervals."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel


def shown(path: Path) -> Path:
    """A path as short as it can be told from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def bytes_text(count: float) -> str:
    """1,234 -> 1.2 kB; thousands, as the budget counts."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def count_text(count: float) -> str:
    """14,195,200 -> 14.2 M."""
    for unit in ("", " k", " M", " G"):
        if count < 1000:
            return f"{count:.0f}" if not unit else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f} T"


def interval_text(estimate: BaseModel | dict[str, Any] | None, digits: int = 3) -> str:
    """0.987 [0.970, 1.001], of what has a value and may have low and high; a dash where there is none."""
    value = estimate.model_dump() if isinstance(estimate, BaseModel) else estimate
    if not value or value.get("value") is None:
        return "-"
    if value.get("low") is None:
        return f"{value['value']:.{digits}f}"
    return f"{value['value']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
