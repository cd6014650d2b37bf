"""The values of a network on a few examples, and what becomes of its answer where a part of it is another one."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.forms.deployed.values import Values
from pipeline.forms.graph import EXTERNAL_DATA_BYTES, refill
from pipeline.forms.sandbox.child import open_session
from pipeline.forms.sandbox.frames import Arrays
from pipeline.measure.sensitivity.behind import Behind

Array = NDArray[Any]
MOST_BYTES = 2**30
"""Of values that are held at once; further batches are not read."""


class Replay:
    """Values that a network computes, kept batch by batch, for the parts that are run on them again.

    Args:
        source: the graph's file; others are written beside it.
        output: name of the output that counts.
        names: of the values to keep, beside the output.
        most_bytes: no batch is read after the values have as many; one at least is.
    """

    def __init__(self, source: Path, output: str, names: Iterable[str], most_bytes: int = MOST_BYTES) -> None:
        self.folder, self.output, self.most_bytes = source.parent, output, most_bytes
        self.values = Values(source, [output, *sorted(names)])
        self.batches: list[dict[str, Array]] = []

    @property
    def examples(self) -> int:
        """How many examples were read."""
        return sum(len(batch[self.output]) for batch in self.batches)

    def read(self, batches: Iterable[Arrays]) -> None:
        """Compute and keep the values of batches, name -> (B, ...), as long as there is room."""
        held = 0
        for feed in batches:
            values = self.values.of(feed)
            self.batches.append(values)
            held += sum(array.nbytes for array in values.values())
            if held >= self.most_bytes:
                break

    def part(self, part: Behind, weights: Sequence[str] = ()) -> "Part":
        """A part of the graph, ready to run with other weights.

        Args:
            part: see `behind`; its graph may have been changed, as long as it is given the same values.
            weights: names of the initializers that will be others.
        """
        first, proto = self.batches[0], part.proto
        tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(first[name].dtype) for name in part.sources}
        kinds |= {name: tensors[name].data_type for name in weights}
        ports = [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
        refill(proto.graph.input, ports)
        path = self.folder / "part.onnx"
        path.with_name("part.onnx.data").unlink(missing_ok=True)  # a file that is there would be added to
        external = proto.ByteSize() > EXTERNAL_DATA_BYTES
        onnx.save(proto, path, save_as_external_data=external, location="part.onnx.data")
        return Part(open_session(path, optimize=True), part.sources, self)


class Part:
    """What lies behind a layer, in a session of its own."""

    def __init__(self, session: Any, sources: Sequence[str], replay: Replay) -> None:
        self.session, self.sources, self.replay = session, sources, replay

    def answers(self, weights: Arrays) -> Iterator[tuple[Array, Array]]:
        """For each batch what the network answers as it is, and what with other weights, both (B, ...)."""
        for values in self.replay.batches:
            feed = {name: values[name] for name in self.sources} | {**weights}
            yield values[self.replay.output], np.asarray(self.session.run([self.replay.output], feed)[0])
