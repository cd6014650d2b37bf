"""What was looked at, what was found, and whether it matters."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """One row of what `shrink doctor` says.

    Args:
        concern: what it belongs to, such as "packages".
        name: what was looked at.
        state: ok; note: not here, and nothing asks for it; warning: it works worse or may fail; missing: it is needed.
        found: what there is.
        fix: what to do, where something is to be done.
    """

    concern: str
    name: str
    state: State
    found: str
    fix: str = ""
