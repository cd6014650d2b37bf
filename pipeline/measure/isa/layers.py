"""The layers at fault where sums saturate, counted on validation: the test split chooses nothing."""

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.batches import Inputs, Outputs
from pipeline.base.hardware import Isa
from pipeline.measure.accuracy import Advance, Evaluation, Scoring, evaluate
from pipeline.measure.elsewhere import differing
from pipeline.measure.isa.emulate import emulate
from pipeline.measure.isa.graphs.rewrite import COUNTS, output_of
from pipeline.measure.isa.work import Layer
from pipeline.model import Deployed, OnnxModel
from pipeline.records.parts.targets import SaturatingLayer
from pipeline.task import Split, Task

EXAMPLES = 256
TRIED = 3
"""How many layers are made exact, one at a time, to see what each changes."""


def examples_of(task: Task) -> Split:
    """The validation examples that layers are looked at on."""
    return task.validation.select(list(range(min(EXAMPLES, len(task.validation)))))


def saturating(
    model: OnnxModel, isa: Isa, task: Task, batch: int, folder: Path, advance: Advance = lambda steps: None
) -> list[SaturatingLayer]:
    """The layers whose sums saturate, the one first whose sums lose most; with what the worst ones change alone.

    Args:
        model: with integers.
        isa: of a CPU that saturates.
        task: its validation split is read, as often as layers are tried and once more.
        batch: examples at a time.
        folder: gets files.
        advance: told of each batch.

    Raises:
        StageError: as `emulate` does.
    """
    few, scoring = examples_of(task), replace(Scoring.of(task), metrics={})
    counted, layers = emulate(model, isa, folder / "counted", counted=True)
    counting = _Counting(counted, layers)
    with _closed(counted):
        own = evaluate(counting, few, scoring, advance=advance, batch=batch)  # type: ignore[arg-type]
    rows = sorted(counting.rows(), key=lambda layer: -layer.error)
    for i, layer in enumerate(rows[:TRIED]):
        other = emulate(model, isa, folder / f"without-{i}", exact=[layer.node]).model
        with _closed(other):
            better = evaluate(other, few, scoring, advance=advance, batch=batch)
        rows[i] = layer.model_copy(update=_effect(better, own, task))
    return rows


def _effect(better: Evaluation, own: Evaluation, task: Task) -> dict[str, float | None]:
    changed, _ = differing(better, own, task)
    return {"changed": changed, "gain": float((better.scores - own.scores).mean())}


def _closed(model: Deployed) -> Any:
    return closing(model) if isinstance(model, OnnxModel) else nullcontext()


class _Counting:
    """Predicts as a model with counting outputs does, and adds up what these say."""

    form = "onnx"

    def __init__(self, model: Deployed, layers: Sequence[Layer]) -> None:
        self.model, self.layers = model, layers
        self.totals: NDArray[np.float64] = np.zeros((len(layers), len(COUNTS)))

    def predict(self, inputs: Inputs) -> Outputs:
        """The model's outputs without those that count."""
        outputs = self.model.predict(inputs)
        for i in range(len(self.layers)):
            for j, count in enumerate(COUNTS):
                if (value := outputs.pop(output_of(i, count), None)) is not None:
                    self.totals[i, j] += float(value.sum())
        return outputs

    def rows(self) -> list[SaturatingLayer]:
        """The layers that saturated."""
        return [
            SaturatingLayer(
                node=layer.node,
                operator=layer.operator,
                place=layer.place,
                shape=layer.shape,
                saturated=saturated / pairs,
                error=float(np.sqrt(taken / max(whole, 1.0))),
            )
            for layer, (saturated, pairs, taken, whole) in zip(self.layers, self.totals.tolist(), strict=True)
            if saturated
        ]
