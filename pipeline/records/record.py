"""The record of a run: what everything else reads. Fields are added to it, none is taken away."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from pipeline.base.files import read_json, write_whole
from pipeline.records.fields import Config, Environment, Name, Splits, Time
from pipeline.records.parts.chosen import Chosen
from pipeline.records.parts.flipped import Flipped
from pipeline.records.parts.gates import GateRecord, Verdict
from pipeline.records.parts.interface import Interface
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import StageRecord

SCHEMA_VERSION = 1
STOPS = (130, 143)  # exit codes of what a signal ended


class Origin(BaseModel):
    """What a run was asked for: the pipeline file as it was named, what was overridden, and the strategy of several.

    `folder` is the file's own, absolute.
    """

    file: str
    folder: str = ""
    overrides: list[str] = []
    strategy: str | None = None


class Failure(BaseModel):
    """Why a run ended early."""

    where: str
    message: str
    exit_code: int

    @property
    def is_stop(self) -> bool:
        """Whether it was asked to stop, so that it can be resumed."""
        return self.exit_code in STOPS


class Record(BaseModel):
    """A whole run, as far as it came. Notes say what was found and ask for nothing; warnings do.

    `comparison` is the folder, beside the run's own, of the comparison that it is part of. `test_uses` counts the
    models that were measured on this test split in this folder of runs, this run's among them. `judged_by` is the
    budget of the gates where `shrink gate --budget` gave another than the config's. `chosen` is the runtime that
    `choose:` came to, null where that is not asked for.
    """

    schema_version: int = SCHEMA_VERSION
    run: Name
    folder: str
    started: Time
    config: Config
    seed: int
    data: Splits
    environment: Environment
    warnings: list[str] = []
    notes: list[str] = []
    baseline: ModelRecord | None = None
    stages: list[StageRecord] = []
    gates: list[GateRecord] = []
    verdict: Verdict | None = None
    judged_by: dict[str, JsonValue] | None = None
    chosen: Chosen | None = None
    register_as: str | None = None
    failure: Failure | None = None
    origin: Origin | None = None
    comparison: Name | None = None
    interface: Interface | None = None
    flipped: Flipped | None = None
    test_uses: int | None = None

    @property
    def final(self) -> ModelRecord | None:
        """The last model that was measured."""
        return self.stages[-1] if self.stages else self.baseline

    @property
    def models(self) -> list[tuple[str, ModelRecord]]:
        """What was measured, by name and in the order of the chain: the baseline, and the model after each stage."""
        baseline = [("baseline", self.baseline)] if self.baseline else []
        return [*baseline, *((stage.name, stage) for stage in self.stages)]

    @property
    def split_digests(self) -> dict[str, str]:
        """The digest of each split that it tells of."""
        splits: dict[str, Any] = self.data
        return {name: str(split["digest"]) for name, split in splits.items() if "digest" in split}

    @property
    def latency_stage(self) -> StageRecord | None:
        """The last stage that measured latencies."""
        return next((stage for stage in reversed(self.stages) if stage.latency), None)

    def save(self) -> None:
        """Write record.json whole or not at all."""
        write_whole(Path(self.folder) / "record.json", self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """What `save` wrote, found again where the run folder is now. Raises ValueError, and OSError."""
        record = cls.model_validate(read_json(folder / "record.json"))
        return record.model_copy(update={"folder": str(folder)})
