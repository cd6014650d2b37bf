"""Whether rows that were timed in the same rounds are apart: drift that both share is no doubt."""

from pipeline.measure.statistics.ratios import Ratio, beside
from pipeline.records.rows import Row, estimate, round_ms


def is_slower(row: Row, than: Row) -> bool | None:
    """Whether a row's latency lies over another's beyond doubt, by its ratio to that in each round.

    As all ratios of latencies it has to lie beyond the noise of both. None where they are of different rounds, or the
    noise is not known.
    """
    own, other = round_ms(row), round_ms(than)
    noises = [noise for noise in (_noise(row), _noise(than)) if noise]
    is_together = bool(own) and len(own) == len(other) and row.get("measured") == than.get("measured") is not None
    return beside(own, other, noises)[1] == "slower" if is_together and len(noises) == 2 else None


def _noise(row: Row) -> Ratio | None:
    noise = estimate(row.get("noise"))
    return Ratio(noise.value, noise.low, noise.high) if noise else None
