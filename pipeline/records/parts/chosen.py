"""Which pair of a model and a runtime was chosen, and why."""

from pydantic import BaseModel, JsonValue


class Pair(BaseModel):
    """A model in a runtime: `strategy` is null in a run, whose last model it is; the rest as in a row of latencies."""

    strategy: str | None = None
    runtime: str
    settings: dict[str, JsonValue] = {}
    host: str | None = None
    threads: int
    batch: int


class Chosen(BaseModel):
    """What `choose:` came to.

    `by` is what the pair has least of, `value` how much in `unit`, with its interval where it has one. `alike` are
    pairs that keep the limits too and cannot be told apart from it. Where none keeps them `pair` is null, and `nearest`
    is the one that misses least, with what it `misses`. `retention` was to be kept on validation in the runtime.
    """

    by: str
    retention: float
    pair: Pair | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str | None = None
    alike: list[Pair] = []
    nearest: Pair | None = None
    misses: list[str] = []
    reason: str
