"""Files that a config names: whether they are there, and whether a run would take them. No code of theirs is run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.doctor.finding import Finding
from pipeline.doctor.hub import CONCERN
from pipeline.errors import ShrinkError


@dataclass(frozen=True)
class File:
    """A file or folder of a config; equal ones are opened once.

    Args:
        key: of the config, with the place before it: "model weights".
        name: as it stands there.
        folder: of the pipeline file.
        form: "weights" or "onnx" for one that is opened.
        sha256: that the config gives of it.
        memory: bytes that an ONNX file may have; None for any.
    """

    key: str
    name: str
    folder: Path
    form: str = ""
    sha256: str | None = None
    memory: int | None = None

    def examined(self) -> Finding:
        """Whether it is there and, by its form, whether a run would take it."""
        label, path = f"{self.key}: {self.name}", self.folder / self.name
        if not path.exists():
            return Finding(CONCERN, label, "missing", f"there is no {path}", "Put it there, or correct the name")
        try:
            return LOOK.get(self.form, _there)(self, label, path)
        except ShrinkError as error:
            message = f"{error.found}; expected {error.expected}" if error.expected else error.found
            return Finding(CONCERN, label, "missing", message, error.fix)


def _there(file: File, label: str, path: Path) -> Finding:
    return Finding(CONCERN, label, "ok", "here")


def _weights(file: File, label: str, path: Path) -> Finding:
    from pipeline.weights import UnsafeError, check_weights  # torch comes with it, which takes seconds

    try:
        check_weights(path, sha256=file.sha256)
    except UnsafeError as error:
        if file.sha256 is None:
            raise
        fix = "Where you trust who made it, run with --allow-unsafe-load, which runs code that it names"
        return Finding(CONCERN, label, "warning", f"{error.found}; its sha256 is right", fix)
    return Finding(CONCERN, label, "ok", "here, with a state dict")


def _onnx(file: File, label: str, path: Path) -> Finding:
    from pipeline.foreign.check import check

    if file.sha256:
        from pipeline.weights import verify  # torch comes with it

        verify(path, file.sha256)
    graph = check(path, file.memory)
    return Finding(CONCERN, label, "ok", f"here; it takes {', '.join(map(str, graph.inputs)) or 'nothing'}")


LOOK: dict[str, Callable[[File, str, Path], Finding]] = {"weights": _weights, "onnx": _onnx}
"""What opens a file, by its form."""
