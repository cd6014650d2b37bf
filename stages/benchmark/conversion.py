"""From a model to what the process that times it is told, in a runtime's form and for each batch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.batches import Inputs
from pipeline.context import Context
from pipeline.model import Model
from stages.benchmark.environments.sources import repeated
from stages.benchmark.hosts.files import loaded_files
from stages.benchmark.hosts.host import Machine
from stages.benchmark.processes.process import Spec, as_arrays
from stages.benchmark.runtime import Runtime


@dataclass(frozen=True)
class Conversion:
    """What is equal for all models of a runtime.

    Args:
        runtime: that they are timed in.
        machine: where its processes run.
        ctx: of the stage.
        sizes: examples of one inference, each is timed.
        example: of inputs, the same for all models, so that the work is equal.
        base: what every process is told.
    """

    runtime: Runtime
    machine: Machine
    ctx: Context
    sizes: tuple[int, ...]
    example: Inputs
    base: Spec

    def specs(self, model: Model, folder: Path) -> dict[int, Spec]:
        """By batch what a process is told of a model that the runtime accepts; `folder` is for what is written.

        Raises:
            StageError: it cannot be converted, or the machine cannot be used.
        """
        described = {"runtime": self.runtime.name, "runner": self.runtime.runner_file, "python": self.runtime.python}
        described["requirement"] = self.runtime.requirement
        self.machine.ready()
        specs: dict[int, Spec] = {}
        place: dict[str, Any] = {}
        for size in sorted(self.sizes, reverse=True):
            if self.runtime.fixed_batch or not place:
                work = folder / f"batch-{size}"
                work.mkdir(parents=True)
                place = self.runtime.convert(model, self.ctx, work, size)
            inputs = next(self.runtime.batches(model, self.ctx, repeated(self.example, size)))
            specs[size] = {
                **described,
                **self.base,
                **place,
                "machine": self.machine,
                "size_bytes": sum(file.stat().st_size for file in loaded_files(place)),
                "inputs": save_inputs(inputs, folder / f"inputs-{size}.npz"),
            }
        return specs


def save_inputs(inputs: Inputs, path: Path) -> str:
    """Write what a process is fed with."""
    np.savez(path, **as_arrays(inputs))
    return str(path)
