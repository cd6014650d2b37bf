"""What was looked at, what was found, and whether it matters."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

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


SHOWN: dict[State, str] = {
    "ok": "[green]ok[/]", "note": "[dim]note[/]", "warning": "[yellow]warning[/]", "missing": "[red]missing[/]",
}  # fmt: skip


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Whether nothing is missing, and all rows."""
    return {"ok": not is_missing(findings), "findings": [asdict(finding) for finding in findings]}


def is_missing(findings: Sequence[Finding]) -> bool:
    """Whether something is missing that is needed."""
    return any(finding.state == "missing" for finding in findings)


def show(findings: Sequence[Finding], console: Console) -> None:
    """A table, a part a concern, and a last line that counts."""
    table = Table("", "", "state", "found")
    last = ""
    for i, row in enumerate(findings):
        ends = i + 1 == len(findings) or findings[i + 1].concern != row.concern
        text = escape(row.found) + (f"\n[dim]{escape(row.fix)}[/]" if row.fix and row.state != "note" else "")
        concern = row.concern if row.concern != last else ""
        table.add_row(concern, escape(row.name), SHOWN[row.state], text, end_section=ends)
        last = row.concern
    console.print(table, highlight=False)
    counts = {state: sum(row.state == state for row in findings) for state in ("missing", "warning")}
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    console.print(summary or "all is well", style="red" if counts["missing"] else "", highlight=False)
