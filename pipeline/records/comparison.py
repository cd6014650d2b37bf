"""The record of a comparison: what its table, its report and its MLflow run are made of."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, model_validator

from pipeline.base.estimate import Estimate
from pipeline.base.files import read_json, write_whole
from pipeline.records.fields import Name, Time
from pipeline.records.parts.chosen import Chosen
from pipeline.records.parts.gates import GateRecord, Verdict
from pipeline.records.parts.stages import Spread
from pipeline.records.record import Failure

BASELINE = "baseline"

SCHEMA_VERSION = 1
FILE = "comparison.json"
NAMES = TypeAdapter(list[Name])


class Timing(BaseModel):
    """A latency as a ratio to the baseline's, interleaved with it; the interval is null for fewer than three rounds."""

    runtime: str
    settings: dict[str, JsonValue] = {}
    host: str | None = None
    threads: int
    batch: int
    value: float
    low: float | None = None
    high: float | None = None
    verdict: str = "inconclusive"


class StrategyRecord(BaseModel):
    """One strategy: its runs, a run a seed, and their figures together; `failures` are by seed.

    Sizes and counts are means over seeds. `score` and `retention` are of the test split and shown beside; the front and
    the choice are made on `validation_retention` and the other figures. `seconds` is what its own stages took when they
    were made; the baseline's are with the baseline. `latency` is of one seed, the first that was timed;
    `runtimes` are its rows, one for each runtime, threads and batch. `gates` are the limits of the budget in the first
    run with the worst of the verdicts.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    claim: str | None = None
    runs: list[str] = []
    failed_runs: list[str] = []
    failures: dict[str, Failure] = {}
    size_bytes: float | None = None
    payload_bytes: float | None = None
    params: float | None = None
    macs: float | None = None
    compression_ratio: float | None = None
    score: Spread | None = None
    retention: Estimate | None = None
    drop: Estimate | None = None
    validation_score: Spread | None = None
    validation_retention: Estimate | None = None
    latency: list[Timing] = []
    runtimes: list[dict[str, JsonValue]] = []
    seconds: float | None = None
    verdicts: list[Verdict | None] = []
    gates: list[GateRecord] = []
    on_front: bool = False
    chosen: bool = False


class PairTest(BaseModel):
    """Whether two strategies differ on the test split: first minus second in mean score, Holm's adjusted p."""

    first: str
    second: str
    difference: Estimate
    p: float
    p_adjusted: float
    distinguishable: bool


class ComparisonRecord(BaseModel):
    """A whole comparison. The first of `strategies` is the baseline.

    Paths of runs are relative to the folder that holds this comparison's own folder. `indistinguishable` are pairs of
    names. `origins` are pipeline files, or run folders where it is `of_runs`. `choice` is the chosen strategy, null
    with the reason where none fits; `chosen` the pair of a strategy and a runtime, where `choose:` asks for it.
    `ended` is null while it runs and where it was stopped.
    """

    schema_version: int = SCHEMA_VERSION
    comparison: Name
    folder: str
    started: Time
    origins: list[str]
    overrides: list[str] = []
    of_runs: bool = False
    data: dict[str, JsonValue] = {}
    environment: dict[str, JsonValue] = {}
    seeds: list[int] = []
    axes: list[str] = []
    strategies: list[StrategyRecord] = []
    tests: list[PairTest] = []
    indistinguishable: list[tuple[str, str]] = []
    choice: str | None = None
    choice_reason: str = ""
    chosen: Chosen | None = None
    test_samples: int = 0
    validation_samples: int = 0
    test_uses: int | None = None
    warnings: list[str] = []
    notes: list[str] = []
    ended: str | None = None

    @model_validator(mode="after")
    def _runs_lie_beside_it(self) -> Self:
        """Of runs that were there before nothing is read, wherever they lie."""
        names = [name for strategy in self.strategies for name in (*strategy.runs, *strategy.failed_runs)]
        if not self.of_runs:
            NAMES.validate_python(names)
        return self

    def save(self) -> None:
        """Write comparison.json whole or not at all."""
        write_whole(Path(self.folder) / FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "ComparisonRecord":
        """What `save` wrote, found again where the folder is now. Raises ValueError, and OSError."""
        record = cls.model_validate(read_json(folder / FILE))
        return record.model_copy(update={"folder": str(folder)})
