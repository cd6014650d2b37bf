"""Our end of the pipes to the process that runs an ONNX file from outside."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from pipeline.errors import ForeignError
from pipeline.foreign.check import check
from pipeline.foreign.frames import Array, Arrays, FrameError, pack, unpack

GIB = 2**30
LEAST_MEMORY = 16 * GIB
TIMES_THE_FILE = 8  # as it is read, as it is parsed, as the optimizer changes it, and what it computes
SECONDS = 300.0
PATIENCE = 5.0  # seconds to end
LAST = 2_000  # characters of what it wrote before it ended
ANSWER = 2**34  # bytes of one answer at most
AT_ONCE = 2**24

# Of a child's environment, what Python and its libraries need; tokens and passwords stay here.
NEEDED = ("PATH", "PYTHON", "LD_", "DYLD_", "LANG", "LC_", "OMP_", "TMP", "TEMP", "HOME", "VIRTUAL_ENV", "CONDA")
MEMORY = ("bad_alloc", "MemoryError", "allocat", "failed to map", "out of memory")


class Limits(NamedTuple):
    """Of the process: bytes of address space, by the size of the file unless given; seconds of one answer."""

    memory: int | None = None
    seconds: float = SECONDS


DEFAULT = Limits()


class Outside(NamedTuple):
    """What there is to know of an ONNX file that comes from outside, or was made of one.

    Args:
        inputs: the task's name of an input -> the graph's, where they differ.
        outputs: the graph's name of an output -> the task's, where they differ.
        limits: of the process that runs it.
    """

    inputs: Mapping[str, str] = MappingProxyType({})
    outputs: Mapping[str, str] = MappingProxyType({})
    limits: Limits = DEFAULT


class Child:
    """A file from outside in a process of its own, which ends with this object.

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
        self.path, self.limits = path, limits
        size = check(path, limits.memory).size_bytes
        memory = limits.memory or max(LEAST_MEMORY, TIMES_THE_FILE * size)
        self.said = tempfile.TemporaryFile()  # noqa: SIM115  # not a pipe: nobody would read it while we wait
        self.process = _started(memory, self.said)
        self._end = weakref.finalize(self, _ended, self.process, self.said, os.getpid())
        # Not where links lead: external data were looked at beside this path.
        head, _ = self._ask({"path": str(path.absolute()), "optimize": optimize}, {})
        self.inputs = [str(name) for name in head.get("inputs", [])]
        self.outputs = [str(name) for name in head.get("outputs", [])]

    def run(self, feed: Arrays) -> dict[str, Array]:
        """The outputs by name for inputs by name. Raises as the class does."""
        return self._ask({}, feed)[1]

    def close(self) -> None:
        """End the process."""
        self._end()

    def _ask(self, head: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], dict[str, Array]]:
        until = time.monotonic() + self.limits.seconds
        try:
            for part in pack(head, arrays):
                self._write(part, until)
            return unpack(lambda count: self._read(count, until), ANSWER)
        except FrameError as error:
            self.close()
            raise ForeignError(f"the process that runs it answered with {error}", where=self._where) from error
        except BrokenPipeError:
            raise self._gone() from None

    def _write(self, part: bytes, until: float) -> None:
        view = memoryview(part)
        while view:
            self._wait(_file(self.process.stdin), select.POLLOUT, until)
            view = view[_file(self.process.stdin).write(view) or 0 :]

    def _read(self, count: int, until: float) -> bytearray:
        found, stream = bytearray(), _file(self.process.stdout)
        while len(found) < count:  # memory is taken as bytes come, not on its word
            self._wait(stream, select.POLLIN, until)
            got = os.read(stream.fileno(), min(count - len(found), AT_ONCE))
            if not got:
                raise self._gone()
            found += got
        return found

    def _wait(self, stream: IO[bytes], event: int, until: float) -> None:
        poll = select.poll()
        poll.register(stream, event)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1_000):
            self.close()
            fix = "Raise `seconds` under `onnx:`, or do not trust this file"
            found = f"the process that runs it did not answer within {self.limits.seconds:g} s"
            raise ForeignError(found, where=self._where, fix=fix)

    @property
    def _where(self) -> str:
        return f"model {self.path}"

    def _gone(self) -> Exception:
        """Why there is no answer: a crash, or what ONNX Runtime said."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # it has closed its output, and lives
            code = -signal.SIGKILL
        self.said.seek(0)
        text = self.said.read().decode(errors="replace").strip()[-LAST:]
        self.close()
        last = text.splitlines()[-1] if text else "it said nothing"
        if code == 1 and not any(word in last for word in MEMORY):
            return RuntimeError(last)
        why = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        fix = "Do not trust this file; where you do, raise `memory` under `onnx:`, or free some"
        return ForeignError(f"the process that runs it {why}: {last}", where=self._where, fix=fix)


def _started(memory: int, said: IO[bytes]) -> subprocess.Popen[bytes]:
    """The process. Its standard input is a pipe that closes when this process dies."""
    # -P: what lies in the current folder under our names is not taken for ours.
    command = [sys.executable, "-P", "-m", "pipeline.foreign.child", str(memory)]
    environment = {name: value for name, value in os.environ.items() if name.startswith(NEEDED)}
    # Each of many threads would reserve much of the address space that is limited.
    environment |= {"MALLOC_ARENA_MAX": "4", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is for us to answer
    )
    os.set_blocking(_file(process.stdin).fileno(), False)
    return process


def _ended(process: subprocess.Popen[bytes], said: IO[bytes], owner: int) -> None:
    if os.getpid() == owner:  # not of a loader's worker, which has a copy of all objects
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, said):
        if stream:
            stream.close()


def _file(stream: IO[bytes] | None) -> IO[bytes]:
    """A pipe of the process, which has both."""
    if stream is None:
        raise ValueError("the process has no such pipe")
    return stream
