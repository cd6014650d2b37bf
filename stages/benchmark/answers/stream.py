"""A runtime as a task asks it: batches of the task's inputs in, and the outputs of each, one after the other."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from pipeline.base.batches import Inputs, Outputs
from pipeline.context import Context
from pipeline.errors import Interruption, StageError
from pipeline.forms.graph import output_names
from pipeline.forms.sandbox.calls import Calls
from pipeline.model import Model, OnnxModel
from stages.benchmark.answers.agreement import output_at
from stages.benchmark.answers.fitting import fitting
from stages.benchmark.processes.process import PIECE, Spec, answers, as_arrays
from stages.benchmark.runners.loaded import Arrays
from stages.benchmark.runtime import Runtime


@dataclass(frozen=True)
class Stream:
    """Answers batches of a task's inputs in a runtime, of which no more than `piece` bytes wait at a time.

    Where the runtime, or the file, takes one number of examples alone, the last call is filled up with examples that
    are there, and cut again.

    Args:
        runtime, model, ctx: what answers.
        spec: what its processes read.
        folder: for what is passed between processes; it is there, and this stream's own.
        size: examples of a call where the runtime has a `fixed_batch`.
        piece: see `answers`.
    """

    runtime: Runtime
    model: Model
    ctx: Context
    spec: Spec
    folder: Path
    size: int
    piece: int = PIECE

    @property
    def refusal(self) -> str:
        """Why the model is not asked in other runtimes, if there is a reason."""
        deployed = self.ctx.deployed(self.model)
        if not isinstance(deployed, OnnxModel):
            return "it generates, which other runtimes are not asked for"
        return "its file has states, which calls hand on" if deployed.how.states else ""

    def __call__(self, batches: Iterable[Inputs]) -> Iterator[Outputs]:
        """The outputs for batches (N, ...) of inputs, by the names that the deployed file has for them.

        Raises:
            StageError, ResourceError: a process failed, `refusal` has a reason, or other outputs came.
            Interruption: a stop was asked for.
        """
        deployed = self.ctx.deployed(self.model)
        if not isinstance(deployed, OnnxModel) or self.refusal:
            raise StageError(self.refusal)
        fixed = self.size if self.runtime.fixed_batch else None
        calls = replace(deployed.how, batch=deployed.how.batch or fixed)
        names, counts = output_names(deployed.path), deque[tuple[int, int]]()
        waiting = answers(self.spec, self._feeds(batches, Calls(fixed), counts), self.folder, self.piece)
        for first in waiting:
            size, count = counts.popleft()
            each = [_in_order(one, names) for one in (first, *islice(waiting, count - 1))]
            steps = count // -(-size // (calls.batch or size))
            yield deployed.named(each[0] if calls == Calls() else calls.joined(each, size, steps))

    def _feeds(self, batches: Iterable[Inputs], calls: Calls, counts: deque[tuple[int, int]]) -> Iterator[Arrays]:
        """What the runtime is fed with; of each batch its examples and its feeds are added to `counts`."""
        for inputs in batches:
            if self.ctx.interrupted():
                raise Interruption("stopped while a runtime answered")
            pieces = calls.each(lambda feed: {}, as_arrays(inputs))
            fed = (as_arrays(feed) for piece in pieces for feed in self._fed(dict(piece)))
            feeds = [*fitting(fed, self.runtime, self.spec)]
            counts.append((len(next(iter(inputs.values()))), len(feeds)))
            yield from feeds

    def _fed(self, arrays: Arrays) -> Iterator[Inputs]:
        inputs = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return self.runtime.batches(self.model, self.ctx, inputs)


def _in_order(outputs: Arrays, names: list[str]) -> Arrays:
    return {name: output_at(outputs, i, name, len(names)) for i, name in enumerate(names)}
