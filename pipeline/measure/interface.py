"""What someone who deploys a model has to know: what goes in, what comes out, and on which scale."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf, isfinite

import onnx
from torch import Tensor

from pipeline.errors import StageError, blame
from pipeline.forms.deployed.seq2seq import SEQUENCES, Seq2SeqOnnx
from pipeline.forms.graph import inputs_of
from pipeline.model import Deployed, OnnxModel
from pipeline.records.parts.interface import Interface, Port
from pipeline.task import CALIBRATION_EXAMPLES, Split, Task

BATCH_SIZE = 128


def interface(deployed: Deployed, task: Task) -> Interface:
    """The ports of the deployed file with the values seen on training data, and what the task says of them.

    Args:
        deployed: the file; of an encoder-decoder's files the encoder's inputs count, and the sequences that come out.
        task: its first calibration examples are looked at, which are part of train.

    Raises:
        StageError: the file does not run on them.
    """
    inputs, outputs = ports(deployed)
    with blame(StageError, "looking at the interface"):
        ranges = _ranges(deployed, task.calibration, (value.name for value in (*inputs, *outputs)))
    return Interface(
        inputs=[port(value, ranges[value.name]) for value in inputs],
        outputs=[port(value, ranges[value.name]) for value in outputs],
        labels=[str(name) for name in task.labels],
        preprocessing=task.preprocessing,
        scored=task.output,
    )


def ports(deployed: Deployed) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """What goes in and what comes out, with names, types and shapes."""
    file = deployed.graphs[0] if isinstance(deployed, Seq2SeqOnnx) else deployed.path
    graph = onnx.load(file, load_external_data=False).graph
    if isinstance(deployed, Seq2SeqOnnx):
        tokens = onnx.helper.make_tensor_value_info(SEQUENCES, onnx.TensorProto.INT64, ["batch", "tokens"])
        return inputs_of(graph), [tokens]
    return inputs_of(graph), list(graph.output)


@dataclass
class Range:
    """Lowest and highest value, mean, and the shape without the batch, of the values that were added."""

    low: float = inf
    high: float = -inf
    total: float = 0.0
    count: int = 0
    shape: list[int] = field(default_factory=list)

    def add(self, values: Tensor) -> None:
        """Take in a batch."""
        self.shape = list(values.shape[1:])
        if values.numel() and not values.is_complex():
            numbers = values.double()
            self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
            self.total, self.count = self.total + float(numbers.sum()), self.count + values.numel()

    @property
    def figures(self) -> dict[str, float]:
        """Low, high and mean, where they are finite."""
        if not self.count:
            return {}
        statistics = {"low": self.low, "high": self.high, "mean": self.total / self.count}
        return {name: value for name, value in statistics.items() if isfinite(value)}


def _ranges(deployed: Deployed, split: Split, names: Iterable[str]) -> dict[str, Range]:
    """What goes in and comes out on the first examples of a split."""
    ranges = {name: Range() for name in names}
    first = split.select(list(range(min(len(split), CALIBRATION_EXAMPLES))))
    for batch in first.loader(BATCH_SIZE):
        fed = deployed.calls(batch.inputs) if isinstance(deployed, OnnxModel) else [deployed.feed(batch.inputs)]
        for values in (*fed, deployed.predict(batch.inputs)):
            for name in ranges.keys() & values.keys():
                ranges[name].add(values[name])
    return ranges


def port(value: onnx.ValueInfoProto, value_range: Range) -> Port:
    """A port with the values that were seen, if any; an axis of any length, as the file says, is -1."""
    kind = value.type.tensor_type
    shape = [axis.dim_value if axis.HasField("dim_value") else -1 for axis in kind.shape.dim[1:]]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return Port(
        name=value.name,
        shape=shape if kind.HasField("shape") else value_range.shape,
        dtype=dtype,
        **value_range.figures,
    )
