"""An ONNX file from outside as something that predicts."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pipeline.forms.sandbox.calls import Calls
from pipeline.forms.sandbox.frames import Array, Arrays
from pipeline.forms.sandbox.process import DEFAULT, Limits, Process


class Outside(NamedTuple):
    """What there is to know of an ONNX file that comes from outside, or was made of one.

    Args:
        inputs: the task's name of an input -> the graph's, where they differ.
        outputs: the graph's name of an output -> the task's, where they differ.
        limits: of the processes that work on it.
        calls: how it is called for a batch of examples.
    """

    inputs: Mapping[str, str] = MappingProxyType({})
    outputs: Mapping[str, str] = MappingProxyType({})
    limits: Limits = DEFAULT
    calls: Calls = Calls()


class Child(Process):
    """A file from outside, loaded by a process of its own; how long that took and the most memory it held then.

    Args:
        path: an ONNX file; it is checked before the process opens it.
        optimize: let ONNX Runtime rewrite the graph.
        limits: of the process.

    Raises:
        ConfigError: the file did not pass; see `check`.
        ForeignError: the process died, asked for too much memory or did not answer.
        RuntimeError: ONNX Runtime refuses the file.
    """

    def __init__(self, path: Path, *, optimize: bool = True, limits: Limits = DEFAULT) -> None:
        super().__init__(path, "pipeline.forms.sandbox.child", "runs", limits)
        # Not where links lead: external data were looked at beside this path.
        head, _ = self.ask({"path": str(path.absolute()), "optimize": optimize}, {})
        self.inputs = [str(name) for name in head.get("inputs", [])]
        self.outputs = [str(name) for name in head.get("outputs", [])]
        self.load_ms: float = head.get("load_ms", 0.0)
        self.peak_bytes: int | None = head.get("peak_bytes")

    def run(self, feed: Arrays) -> dict[str, Array]:
        """The outputs by name for inputs by name. Raises as `ask` does."""
        return self.ask({}, feed)[1]
