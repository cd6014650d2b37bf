"""What became of the limits of a budget."""

from typing import Literal

from pydantic import BaseModel

Verdict = Literal["pass", "fail", "inconclusive"]
GateVerdict = Literal["pass", "fail", "inconclusive", "skipped"]


class GateRecord(BaseModel):
    """One limit of the budget, what was found, and the verdict.

    `limit` is absolute; `of` says what it was told as a share of. `counts_as` is what the verdict means for the run,
    where the budget says so for an inconclusive or a skipped gate. `fix` says what to change next, `samples_needed` is
    the number of test examples that would decide. `unit` is the limit's and the value's, null for plain numbers.
    """

    name: str
    limit: float
    value: float | None
    low: float | None = None
    high: float | None = None
    verdict: GateVerdict
    message: str
    of: Literal["baseline", "expected"] | None = None
    counts_as: Literal["pass", "warn", "fail", "inconclusive"] | None = None
    fix: str = ""
    samples_needed: int | None = None
    unit: Literal["ms", "bytes"] | None = None
