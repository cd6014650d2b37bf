"""Files and data that a config names: whether they are there, and whether a run would take them; none is run."""

import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.data.hub import Kind, ask, cached, could_be_name, endpoint, switched_off
from pipeline.cli.doctor.finding import Finding
from pipeline.errors import ShrinkError

CONCERN = "config"


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
    from pipeline.forms.weights import UnsafeError, check_weights  # torch comes with it, which takes seconds

    try:
        check_weights(path, sha256=file.sha256)
    except UnsafeError as error:
        if file.sha256 is None:
            raise
        fix = "Where you trust who made it, run with --allow-unsafe-load, which runs code that it names"
        return Finding(CONCERN, label, "warning", f"{error.found}; its sha256 is right", fix)
    return Finding(CONCERN, label, "ok", "here, with a state dict")


def _onnx(file: File, label: str, path: Path) -> Finding:
    from pipeline.forms.sandbox.check import check

    if file.sha256:
        from pipeline.forms.weights import verify  # torch comes with it

        verify(path, file.sha256)
    graph = check(path, file.memory)
    return Finding(CONCERN, label, "ok", f"here; it takes {', '.join(map(str, graph.inputs)) or 'nothing'}")


LOOK: dict[str, Callable[[File, str, Path], Finding]] = {"weights": _weights, "onnx": _onnx}
"""What opens a file, by its form."""


def located(what: str, name: str, kind: Kind, folders: Sequence[Path]) -> Finding:
    """Where it is.

    Args:
        what: the key of the config.
        name: a path, or a name on the hub such as "owner/name".
        kind: what it is on the hub.
        folders: from which a path may go.
    """
    label = f"{what}: {name}"
    place = next((folder / name for folder in folders if (folder / name).exists()), None)
    if place is not None:
        return Finding(CONCERN, label, "ok", f"{place.resolve()} is here")
    if not could_be_name(name):
        return Finding(CONCERN, label, "missing", "there is no such file or folder", f"Set {what} to where it is")
    if cache_folder := cached(name, kind):
        return Finding(CONCERN, label, "ok", f"in the cache, {cache_folder}")
    if switched_off():
        fix = f"Set {what} to a folder, or fetch it where there is a network"
        return Finding(CONCERN, label, "missing", "not here and not in the cache, and the hub is switched off", fix)
    return asked(label, name, kind)


def asked(label: str, name: str, kind: Kind) -> Finding:
    """What the hub says, within seconds."""
    hub = endpoint()
    try:
        ask(name, kind)
        return Finding(CONCERN, label, "ok", f"{hub} has it; it will be fetched")
    except urllib.error.HTTPError as error:
        fix = "Look at the name, or log in with `hf auth login`"
        return Finding(CONCERN, label, "missing", f"not here, and {hub} answers {error.code} {error.reason}", fix)
    except (OSError, ValueError) as error:
        message = f"not here, and {hub} does not answer: {getattr(error, 'reason', error)}"
        return Finding(CONCERN, label, "missing", message, "Give a folder, or fetch it where there is a network")
