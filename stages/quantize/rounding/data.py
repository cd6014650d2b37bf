"""The calibration split as the steps of quantization read it: batch by batch, in the graph's names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import onnx
from torch import Tensor

from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.forms.graph import inputs_of
from pipeline.forms.sandbox.frames import Arrays
from pipeline.model import OnnxModel
from pipeline.task import Split
from stages.quantize.graphs.names import Names


@dataclass(frozen=True)
class Calibration:
    """Typical inputs.

    Args:
        split: the examples.
        batch_size: examples of a batch.
        model: the file that takes them.
        advance: told the number of examples of each batch that is read.
        passes: how often they are read, one time after the other.
    """

    split: Split
    batch_size: int
    model: OnnxModel
    advance: Callable[..., None]
    passes: int = 1

    @property
    def examples(self) -> int:
        """How many there are."""
        return len(self.split)

    @property
    def count(self) -> int:
        """How many times the file is given a batch."""
        loader = self.split.loader(self.batch_size)
        calls = sum(self.model.count(batch.inputs) for batch in loader) if self.model.in_calls else len(loader)
        return self.passes * calls

    def batches(self, graph: onnx.GraphProto, names: Names) -> Iterator[Arrays]:
        """Name -> array (B, ...), one batch in memory at a time.

        Args:
            graph: the prepared graph.
            names: what its inputs were called.

        Raises:
            StageError: the graph takes an input that the data lack, or one has a value that is not a number.
        """
        inputs = {value.name: names.values[value.name] for value in inputs_of(graph)}
        for batch in chain.from_iterable(self.split.loader(self.batch_size) for _ in range(self.passes)):
            self.advance(len(batch.index))
            for feed in self.model.calls(batch.inputs):
                if missing := {*inputs.values()} - set(feed):
                    expected = f"inputs {[*inputs.values()]}"
                    raise StageError(f"the calibration data lacks {sorted(missing)}", expected=expected)
                if wrong := [name for name in inputs.values() if _has_nan(feed[name])]:
                    span = f"{int(batch.index[0])} to {int(batch.index[-1])}"
                    problem = f"the calibration data have NaN in `{wrong[0]}`, among examples {span}"
                    raise StageError(problem, expected="numbers", fix="Mend or remove these examples")
                yield {name: feed[plain].numpy() for name, plain in inputs.items()}


@contextmanager
def calibration(
    model: OnnxModel, ctx: Context, examples: int | None, batch_size: int, passes: int = 1
) -> Iterator[Calibration]:
    """The calibration split, or the first examples of it, with its progress shown.

    Raises:
        StageError: the split is empty.
    """
    used = min(len(ctx.calibration), examples or len(ctx.calibration))
    if not used:
        raise StageError("the calibration split is empty", expected="typical inputs, 100 or more")
    with ctx.progress("calibration", passes * used) as advance:
        yield Calibration(ctx.calibration.select(list(range(used))), batch_size, model, advance, passes)


def _has_nan(values: Tensor) -> bool:
    return values.is_floating_point() and bool(values.isnan().any())
