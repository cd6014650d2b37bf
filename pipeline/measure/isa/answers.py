"""What a model with integers answers on another CPU: its evaluation there, and the layers at fault."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.base.hardware import Isa, saturates_on
from pipeline.context import Scored
from pipeline.measure.accuracy import Evaluation, Scoring, evaluate, scores_on_validation
from pipeline.measure.isa.emulate import emulate
from pipeline.measure.isa.errors import NoIntegersError
from pipeline.measure.isa.layers import TRIED, examples_of, saturating
from pipeline.model import Deployed, OnnxModel
from pipeline.records.parts.models import Flips
from pipeline.records.parts.targets import SaturatingLayer, TargetRecord
from pipeline.task import Task

PREDICTIONS, LAYERS = "predictions.safetensors", "layers.json"
Progress = Callable[[str, int], AbstractContextManager[Callable[..., Any]]]


@dataclass(frozen=True)
class Answers:
    """What a model answers on another CPU.

    Args:
        evaluation: on the test split, with the scores on validation.
        layers: those that saturate; none where they were not looked at.
        examples: of validation that they were looked at on; None where they were not.
    """

    evaluation: Evaluation
    layers: tuple[SaturatingLayer, ...] = ()
    examples: int | None = None


def answers(model: Deployed, isa: Isa, task: Task, batch: int, progress: Progress, folder: Path) -> Answers | None:
    """The answers on CPUs of a kind; None for a model without integers, of which every CPU answers alike.

    Args:
        model: in the form in which it is deployed.
        isa: the kind.
        task: what it is measured on.
        batch: examples at a time, as it was measured here.
        progress: progress(description, total), of batches.
        folder: files lie there while it is asked.

    Raises:
        UnknownError, ForeignError, StageError: as `emulate` does; predictions are not finite.
    """
    with TemporaryDirectory(dir=folder, prefix="emulated-") as name:
        try:
            emulated, at_risk = emulate(model, isa, Path(name))
        except NoIntegersError:
            return None
        looked_at = bool(at_risk) and saturates_on(isa) and isinstance(model, OnnxModel)
        few = examples_of(task)
        sizes = [len(task.test), len(task.validation), *([len(few)] * (TRIED + 1) if looked_at else [])]
        with progress(f"answers on {isa}", sum(-(-size // batch) for size in sizes)) as advance:
            with closing(emulated) if isinstance(emulated, OnnxModel) else nullcontext():
                own = evaluate(emulated, task.test, _scoring(task), advance=advance, batch=batch)
                scores = scores_on_validation(emulated, task, batch, advance)
            evaluation = replace(own, validation_scores=scores, batch=batch)
            if not looked_at or not isinstance(model, OnnxModel):
                return Answers(evaluation)
            layers = saturating(model, isa, task, batch, Path(name), advance)
    return Answers(evaluation, tuple(layers), len(few))


def save(given: Answers | None, folder: Path) -> None:
    """Write answers, or that there are none."""
    rows = [layer.model_dump(mode="json") for layer in given.layers] if given else []
    (folder / LAYERS).write_text(json.dumps({"examples": given.examples if given else None, "layers": rows}))
    if given:
        given.evaluation.save(folder / PREDICTIONS)


def load(folder: Path) -> Answers | None:
    """What `save` wrote."""
    if not (folder / PREDICTIONS).exists():
        return None
    entry = json.loads((folder / LAYERS).read_text())
    layers = tuple(SaturatingLayer(**row) for row in entry["layers"])
    return Answers(Evaluation.load(folder / PREDICTIONS), layers, entry["examples"])


def _scoring(task: Task) -> Scoring:
    return replace(Scoring.of(task), metrics={})


def record_of(isa: Isa, given: Answers, scored: Scored, *, kept_here: bool, can_reduce: bool) -> TargetRecord:
    """The record of what a model answers elsewhere.

    Args:
        isa: of the CPU.
        given: the answers there.
        scored: the same in pairs with what it answers here.
        kept_here: whether the budget's limits on the score are kept here.
        can_reduce: whether the stage has `reduce_range` and does not use it.
    """
    flips = None if scored.lost is None or scored.gained is None else Flips(lost=scored.lost, gained=scored.gained)
    loses = bool(scored.changed or scored.difference)
    return TargetRecord(
        isa=isa,
        score=scored.value,
        validation_score=scored.validation,
        retention=scored.retention,
        validation_retention=scored.validation_retention,
        drop=scored.drop,
        flips=flips,
        changed=scored.changed,
        difference=scored.difference,
        keeps_budget=scored.keeps_budget,
        budget_here_alone=kept_here and scored.keeps_budget is False,
        layers=list(given.layers),
        layer_examples=given.examples,
        reduce_range_helps=can_reduce and loses and bool(given.layers),
    )
