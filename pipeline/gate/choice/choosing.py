"""`choose:` of a pipeline file: what the pair of a model and a runtime is chosen by."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from pydantic import Field

from pipeline.base.estimate import Estimate
from pipeline.gate.limits import RowLimit
from pipeline.records.rows import Row, estimate, median_ms, peak_bytes, startup_ms

By = Literal["latency", "size", "memory", "startup", "energy"]


class Choosing(RowLimit):
    """By what to choose, and what has to be kept; among all rows, or those that it names."""

    by: By = Field(default="latency", description="what the chosen pair has least of")
    retention: float | None = Field(
        default=None, gt=0, le=1, description="kept on validation in the runtime; as the budget unless given, else 0.95"
    )


class Kind(NamedTuple):
    """What pairs are compared by.

    Args:
        best: what to call the one with the least.
        unit: of the figure.
        read: the figure of a row, None where it has none.
        key: of the row's reasons, for a row without it.
        in_rounds: whether it is of rounds, which rows may have in common.
    """

    best: str
    unit: str
    read: Callable[[Row], Estimate | None]
    key: str
    in_rounds: bool = False


def _energy(row: Row) -> Estimate | None:
    energy = row.get("energy")
    return estimate(energy.get("joules")) if isinstance(energy, dict) else None


KINDS: dict[str, Kind] = {
    "latency": Kind("fastest", "ms", median_ms, "p50_ms", in_rounds=True),
    "size": Kind("smallest", "bytes", lambda row: estimate(row.get("size_bytes")), "size_bytes"),
    "memory": Kind("one that holds least memory", "bytes", peak_bytes, "memory"),
    "startup": Kind("quickest to start", "ms", startup_ms, "startup"),
    "energy": Kind("one that takes least energy", "J", _energy, "energy"),
}
