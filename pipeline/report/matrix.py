"""Models by runtimes: in each cell size, start-up, median latency, memory and score, or why there are none."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import bytes_text, milliseconds_text
from pipeline.records.comparison import BASELINE, ComparisonRecord
from pipeline.records.figures import number, runtime_of
from pipeline.records.parts.chosen import Pair
from pipeline.records.record import Record
from pipeline.records.rows import Row, estimate, median_ms, peak_bytes, place_of, score_of, startup_ms

FIGURES = ("size", "start-up", "p50", "memory", "score", "answers")


@dataclass(frozen=True)
class Spot:
    """A cell: the texts of `FIGURES`, a dash for what is missing; or why there are none."""

    texts: Sequence[str] = ()
    skipped: str = ""
    chosen: bool = False
    verdict: str = ""
    """Of the score; empty where there is none."""


@dataclass(frozen=True)
class Matrix:
    """Names of models, places such as `ncnn, threads 1, batch 1`, and the spots by both; not every one is there.

    Where threads and batch are the same everywhere, `setting` has them, and places are runtimes alone.
    """

    names: Sequence[str]
    places: Sequence[str]
    spots: Mapping[tuple[str, str], Spot] = field(default_factory=dict)
    setting: str = ""

    @property
    def reasons(self) -> list[str]:
        """Why spots have no figures, each once."""
        return list(dict.fromkeys(spot.skipped for spot in self.spots.values() if spot.skipped))

    def lines(self) -> Iterator[tuple[str, str, Spot]]:
        """Every spot with its name and place, model by model."""
        for name in self.names:
            for place in self.places:
                if spot := self.spots.get((name, place)):
                    yield name, place, spot


def of_run(record: Record) -> Matrix:
    """The models of a run that were measured in runtimes, and its baseline there."""
    named: list[tuple[str, Row]] = []
    for stage in record.stages:
        before = [other.name for other in record.stages if other.position < stage.position and other.changed]
        named += [(before[-1] if before else "model", row) for row in stage.latency]
    last = record.chosen and record.chosen.pair
    chosen = (named[-1][0], place_of(last.model_dump())) if last and named else None
    return _matrix([*_baselines(row for _, row in named), *named], chosen)


def of_comparison(record: ComparisonRecord) -> Matrix:
    """The strategies of a comparison in the runtimes in which they were measured, and the baseline."""
    named = [(strategy.name, row) for strategy in record.strategies for row in strategy.runtimes]
    pair = record.chosen and record.chosen.pair
    chosen = (str(pair.strategy), place_of(pair.model_dump())) if pair else None
    return _matrix([*_baselines(row for _, row in named), *named], chosen)


def figures(row: Row) -> list[str]:
    """The texts of `FIGURES` of a row."""
    score = estimate(score_of(row).get("value"))
    return [
        _bytes(estimate(row.get("size_bytes"))),
        _milliseconds(startup_ms(row)),
        _milliseconds(median_ms(row)) + _beside(row.get("to_first")),
        _bytes(peak_bytes(row)),
        f"{score.value:.4f}" if score else "-",
        str(score_of(row).get("verdict") or "-"),
    ]


def _matrix(named: Sequence[tuple[str, Row]], chosen: tuple[str, str] | None) -> Matrix:
    settings = {place_of(row).removeprefix(f"{runtime_of(row)}, ") for _, row in named}
    spots = {}
    for name, row in named:
        place = runtime_of(row) if len(settings) == 1 else place_of(row)
        skipped, verdict = str(row.get("skipped") or ""), str(score_of(row).get("verdict") or "")
        is_chosen = (name, place_of(row)) == chosen
        spots[name, place] = Spot(() if skipped else figures(row), skipped, is_chosen, verdict)
    names, places = dict.fromkeys(name for name, _ in spots), dict.fromkeys(place for _, place in spots)
    return Matrix([*names], [*places], spots, min(settings) if len(settings) == 1 else "")


def _baselines(rows: Iterable[Row]) -> list[tuple[str, Row]]:
    """What rows tell of the baseline in the same runtime: the median, and what `baseline` has; one a place."""
    lines: dict[str, Row] = {}
    for row in rows:
        own = row.get("baseline")
        if number(row.get("baseline_p50_ms")) is not None and place_of(row) not in lines:
            place: dict[str, Any] = {key: row[key] for key in Pair.model_fields if key in row}
            lines[place_of(row)] = {**place, "p50_ms": row["baseline_p50_ms"], **(own if isinstance(own, dict) else {})}
    return [(BASELINE, line) for line in lines.values()]


def _bytes(figure: Estimate | None) -> str:
    return bytes_text(figure.value) if figure else "-"


def _beside(ratio: Any) -> str:
    """What the row says of itself and the first runtime of the same rounds, in brackets: ` (faster)`."""
    verdict = ratio.get("verdict") if isinstance(ratio, dict) else None
    return f" ({verdict})" if isinstance(verdict, str) else ""


def _milliseconds(figure: Estimate | None) -> str:
    return milliseconds_text(figure) if figure else "-"
