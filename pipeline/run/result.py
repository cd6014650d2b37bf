"""What a stage is run on, what it tells meanwhile, and what is kept of both."""

import json
import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError
from rich.console import Console

from pipeline.base.devices import pick_device
from pipeline.base.files import folder_digest
from pipeline.base.progress import progress
from pipeline.base.signals import Interrupts
from pipeline.build.build import Built
from pipeline.context import Context
from pipeline.errors import Note, StageError
from pipeline.fit import forms
from pipeline.measure.accuracy import Evaluation
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.records.parts.kernels import Kernels
from pipeline.run.measuring import DeployedFiles
from pipeline.run.roundtrip import save_exactly
from pipeline.run.store.store import RESULT
from pipeline.stage import Stage
from pipeline.task import kind

LOG = logging.getLogger("shrinkline")
JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


@dataclass(frozen=True)
class Result:
    """A model with its digest and its folder in the run, and what the stage that gave it had to say."""

    model: Model
    digest: str
    folder: Path
    reports: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    cached: bool = False
    key: str | None = None
    measured_only: bool = False
    uses: tuple[str, ...] = ()
    comparisons: dict[str, "Result"] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    """What the model gives on test and validation, once it is measured."""
    kernels: Kernels | None = None
    """How its file runs beside that of the model that came in, once that is measured."""


@dataclass
class StageRun:
    """A stage that runs: its place, what comes in, the folder that it works in, and what it tells meanwhile."""

    place: str
    incoming: Result
    work: Path
    reports: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    comparisons: dict[str, TorchModel] = field(default_factory=dict)
    uses: list[str] = field(default_factory=list)
    """The keys of what it took from the store, or had kept there."""
    began: float = field(default_factory=time.monotonic)

    def context(
        self, built: Built, baseline: Model | None, deployed: DeployedFiles, interrupts: Interrupts, console: Console
    ) -> Context:
        """What the stage is given beside the model, alone in its process and without a store; see `Executor`."""
        return Context(
            task=built.task,
            baseline=baseline,
            directory=self.work,
            device=pick_device(built.config.device),
            seed=built.config.seed,
            log=LOG,
            progress=partial(progress, console, LOG),
            report=self.report,
            deployed=partial(deployed.of, folder=self.work),
            interrupted=interrupts.requested,
            batch=built.config.batch,
            warn=self.warnings.append,
            compare=self.comparisons.__setitem__,
        )

    def report(self, name: str, value: Any) -> None:
        """Keep what the stage reports. Raises StageError where it is not JSON."""
        try:
            self.reports[name] = JSON.validate_python(value)
        except ValidationError as error:
            problem = f"the report `{name}` holds {kind(error.errors()[0]['input'])}"
            fix = "Use .item() or .tolist() on tensors and arrays"
            expected = "JSON: numbers, text, lists, dictionaries with names"
            raise StageError(problem, expected=expected, fix=fix) from None

    def promised(self, stage: Stage, model: Any) -> Model:
        """The model that the stage gave. Raises StageError where it is not what `run` is annotated with."""
        incoming = self.incoming.model
        form = forms(type(stage))[1] or type(incoming)
        if not isinstance(model, Model) or not isinstance(model, form):
            raise StageError(f"run gave {type(model).__name__}", expected=f"{form.__name__}, as it is annotated")
        if isinstance(model, OnnxModel) and isinstance(incoming, OnnxModel) and incoming.outside and not model.outside:
            return replace(model, outside=incoming.outside)  # what is made of a file from outside is from there too
        return model

    def save(self, model: Model, to: Path, folder: Path) -> None:
        """Write the model that the stage gave, and what it tells.

        Args:
            model: what it gave; the one that came in where it only measured, and is not written.
            to: a folder to fill.
            folder: where the user's files are.
        """
        digest = None  # of one that only measured
        if model is not self.incoming.model:
            save_exactly(model, to / "model", folder)
            digest = folder_digest(to / "model")
        for name, other in self.comparisons.items():
            save_exactly(other, to / "comparisons" / name, folder)
        entry: dict[str, Any] = {"digest": digest}
        notes = [text for text in self.warnings if isinstance(text, Note)]
        warnings = [text for text in self.warnings if not isinstance(text, Note)]
        entry |= {"reports": self.reports, "warnings": warnings, "notes": notes, "uses": self.uses}
        entry |= {"comparisons": list(self.comparisons), "seconds": round(time.monotonic() - self.began, 3)}
        (to / RESULT).write_text(json.dumps(entry))
