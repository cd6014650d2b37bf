"""The fresh processes that load a model in a runtime: one at a time, each told by a file and telling by another."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.base.batches import Inputs
from stages.benchmark.hosts.here import HERE
from stages.benchmark.hosts.host import Machine
from stages.benchmark.runners.loaded import Arrays, read_batches, write_batches

PIECE = 256 * 2**20
"""Bytes of inputs that a process is given at most, and a batch more."""

Spec = dict[str, Any]
"""What `stages.benchmark.runners.child` reads. Beside that, each ours unless given: `python`, the interpreter, `root`,
the folder with `stages` that it runs in, and `machine`, which runs the process."""


def time_process(spec: Spec, folder: Path) -> tuple[list[float], dict[str, Any]]:
    """Time a model in a fresh process.

    Args:
        spec: what the process reads, without `result`; paths are absolute.
        folder: where the spec and the result are written.

    Returns:
        Latencies in milliseconds, and what else the process tells: `description`, `startup` and `memory`.

    Raises:
        StageError: the process failed; with the last lines that it wrote.
        ResourceError: it was killed, most likely for memory.
    """
    content = run_process(spec, folder, "timed")
    return [ns / 1e6 for ns in content.pop("samples_ns", ())], content


def answers(spec: Spec, batches: Iterable[Arrays], folder: Path, piece: int = PIECE) -> Iterator[Arrays]:
    """The outputs of a model for batches of inputs, one after the other; raises as `time_process`.

    Inputs go in pieces, each by a file to a fresh process, and outputs come back by another.

    Args:
        spec: what the process reads, without `batches`, `answers` and `result`.
        batches: asked for as they are sent.
        folder: where these files are written; for one stream at a time.
        piece: bytes of inputs after which a piece ends; it has a batch at least.
    """
    asked, answered, waiting = folder / "batches.npz", folder / "answers.npz", iter(batches)
    while write_batches(_piece(waiting, piece), asked):
        run_process({**spec, "batches": str(asked), "answers": str(answered)}, folder, "answered")
        yield from read_batches(answered)


def as_arrays(inputs: Inputs) -> Arrays:
    """What a process is fed with, as numpy has it."""
    return {name: value.cpu().numpy() for name, value in inputs.items()}


def _piece(waiting: Iterator[Arrays], most: int) -> Iterator[Arrays]:
    size = 0
    while size < most and (batch := next(waiting, None)) is not None:
        size += sum(value.nbytes for value in batch.values())
        yield batch


def run_process(spec: Spec, folder: Path, did: str) -> dict[str, Any]:
    """What a fresh process tells; `did` says in messages what it was for. Raises as `time_process`."""
    machine: Machine = spec.get("machine", HERE)
    plain = {name: value for name, value in spec.items() if name != "machine"}
    return machine.run(plain, folder, f"{did} {spec['model']}")
