"""Values inside a graph, computed as its outputs are."""

from collections.abc import Iterable
from pathlib import Path

import onnx

from pipeline.forms.graph import inputs_of, refill
from pipeline.forms.sandbox.child import open_session
from pipeline.forms.sandbox.frames import Array, Arrays


class Values:
    """Some values of a graph, batch by batch.

    Args:
        source: the graph's file; one with these values for outputs is written beside it, where its external data lie.
        names: of values; of inputs too, which are not computed.
        optimize: have ONNX Runtime rewrite the graph first, which changes roundings.
    """

    def __init__(self, source: Path, names: Iterable[str], *, optimize: bool = True) -> None:
        proto = onnx.load(source, load_external_data=False)
        self.fed = [value.name for value in inputs_of(proto.graph)]
        self.names = [name for name in dict.fromkeys(names) if name not in self.fed]
        known = {value.name: value for value in proto.graph.output}
        path = source.with_name("values.onnx")
        if self.names:  # else a graph is opened as it is, for one without outputs is none
            refill(proto.graph.output, [known.get(name) or onnx.ValueInfoProto(name=name) for name in self.names])
        onnx.save(proto, path)
        self.session = open_session(path, optimize=optimize)

    def of(self, batch: Arrays) -> dict[str, Array]:
        """The values that a batch gives, beside what the batch holds."""
        feed = {name: batch[name] for name in self.fed}
        outputs = self.session.run(self.names, feed) if self.names else []
        return {**batch, **dict(zip(self.names, outputs, strict=True))}
