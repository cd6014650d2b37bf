"""Whether a runtime answers as ONNX Runtime does, on real examples and before anything is timed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue

from pipeline.base.batches import Inputs
from pipeline.base.targets.labelling import Labelling
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.measure.agreement import agreeing
from pipeline.model import Model
from stages.benchmark.answers.distances import Apart, tolerance_of
from stages.benchmark.answers.fitting import fitting
from stages.benchmark.processes.process import Spec, answers, as_arrays
from stages.benchmark.runners.loaded import Arrays, read_batches, write_batches
from stages.benchmark.runtime import Runtime
from stages.benchmark.runtimes.onnxruntime import OnnxRuntime

REFERENCE = OnnxRuntime(use="onnxruntime")


@dataclass(frozen=True)
class Agreement:
    """How far the answers of a runtime are from ONNX Runtime's.

    Args:
        examples: that were answered.
        difference: the largest, as a share of the range that the output has over all examples.
        tolerance: how much of it is taken for the same.
        decisions: the share of examples, or of their positions, with the same decision; None where outputs are no
            logits.
        worst: the place of the example with the largest difference among them; None where they are not told apart.
    """

    examples: int
    difference: float
    tolerance: float
    decisions: float | None
    worst: int | None

    @property
    def agrees(self) -> bool:
        """Whether the answers are the same up to rounding."""
        return self.difference <= self.tolerance

    @property
    def json(self) -> dict[str, JsonValue]:
        """As it stands in a row."""
        figures = {"examples": self.examples, "difference": self.difference, "tolerance": self.tolerance}
        return {"agrees": self.agrees, "agreement": {**figures, "decisions": self.decisions, "worst": self.worst}}

    def __str__(self) -> str:
        decisions = "" if self.decisions is None else f", {self.decisions:.2%} of decisions are the same"
        worst = "" if self.worst is None else f", the worst example is number {self.worst} of the calibration split"
        return (
            f"its answers differ from ONNX Runtime's by up to {self.difference:.2%} of an output's range, where "
            f"{self.tolerance:.2%} is rounding{decisions}{worst}"
        )


@dataclass
class Examination:
    """The examples that every runtime answers, and what ONNX Runtime answers, which is asked once a model.

    Args:
        ctx: of the stage; examples are of its calibration split.
        folder: for what is passed between processes; it is there.
        examples: how many, rounded to whole batches.
        batch: examples of one inference.
    """

    ctx: Context
    folder: Path
    examples: int
    batch: int
    reference: dict[str, Path] = field(default_factory=dict)

    def of(self, name: str, model: Model, runtime: Runtime, spec: Spec) -> Agreement:
        """Of a model, called `name`, in a runtime whose process reads `spec`.

        Raises:
            StageError, ResourceError: a process failed, or the runtime gives NaN, or outputs of another shape.
        """
        deployed = self.ctx.deployed(model).path.resolve()
        if name not in self.reference:
            path = self.folder / f"reference-{len(self.reference)}.npz"
            reference = {"runner": REFERENCE.runner_file, "model": str(deployed), "threads": spec["threads"]}
            write_batches(self._answers(model, REFERENCE, reference), path)
            self.reference[name] = path
        own = self._answers(model, runtime, {key: value for key, value in spec.items() if key != "generate"})
        labelling = self.ctx.labelling if self.ctx.logits else None
        return compare(own, read_batches(self.reference[name]), tolerance_of(deployed), labelling, self.ctx.output)

    def _answers(self, model: Model, runtime: Runtime, spec: Spec) -> Iterator[Arrays]:
        feeds = (feed for inputs in self._inputs() for feed in runtime.batches(model, self.ctx, inputs))
        return answers(spec, fitting(map(as_arrays, feeds), runtime, spec), self.folder)

    def _inputs(self) -> Iterator[Inputs]:
        """Full batches, one at least; a split of fewer examples than that is gone through again."""
        size, there = self.batch, len(self.ctx.calibration)
        count = max(min(self.examples, there) // size, 1) * size
        places = [i % there for i in range(count)]
        for batch in self.ctx.calibration.select(places).loader(self.batch):
            yield batch.inputs


def compare(
    own: Iterable[Arrays],
    reference: Iterable[Arrays],
    tolerance: float,
    labelling: Labelling | None = None,
    output: str | None = None,
) -> Agreement:
    """How far answers are apart, batch by batch and output by output, in the order of the outputs.

    Args:
        own: the answers of a runtime.
        reference: ONNX Runtime's; each is gone through once.
        tolerance: see `Agreement`.
        labelling: of the output that is scored, where it is logits.
        output: its name; the first unless given.

    Raises:
        StageError: NaN where there is a number in the reference, or outputs of other shapes.
    """
    apart, decisions, examples = dict[str, Apart](), list[torch.Tensor](), 0
    for ours, theirs in zip(own, reference, strict=True):
        names = [*theirs]
        for i, name in enumerate(names):
            apart.setdefault(name, Apart(name)).add(output_at(ours, i, name, len(names)), theirs[name])
        examples += len(theirs[names[0]])
        if labelling:
            place = names.index(output) if output in names else 0
            decisions.append(_same(output_at(ours, place, names[place], len(names)), theirs[names[place]], labelling))
    shares = [one.shares for one in apart.values()]
    same = float(torch.cat(decisions).mean()) if labelling else None
    return Agreement(examples, max(float(s.max(initial=0)) for s in shares), tolerance, same, _worst(shares, examples))


def _same(ours: Any, theirs: Any, labelling: Labelling) -> torch.Tensor:
    return agreeing(torch.from_numpy(ours), torch.from_numpy(theirs), labelling)


def output_at(batch: Mapping[str, Any], place: int, name: str, count: int) -> Any:
    """The output that stands for one of the reference, whose names may differ from a module's."""
    if len(batch) != count:
        raise StageError(f"it gives {len(batch)} outputs, and ONNX Runtime {count}")
    return batch[name] if name in batch else [*batch.values()][place]


def _worst(apart: Sequence[Any], examples: int) -> int | None:
    rows = [values for values in apart if len(values) == examples]
    return int(np.argmax(np.max(rows, axis=0))) if rows and len(rows) == len(apart) else None
