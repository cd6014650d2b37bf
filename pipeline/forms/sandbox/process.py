"""Our end of the pipes to a process that works on an ONNX file from outside."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import IO, Any, NamedTuple

from pipeline.errors import ForeignError, ResourceError
from pipeline.forms.sandbox.check import check
from pipeline.forms.sandbox.frames import Array, Arrays, FrameError, pack, unpack

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
LIMITED = ("bad_alloc", "MemoryError", "allocat", "failed to map", "out of memory", "File too large")
FULL = ("No space left on device", "Disk quota exceeded")


class Limits(NamedTuple):
    """Of the process: bytes of address space, by the size of the file unless given; seconds of one answer."""

    memory: int | None = None
    seconds: float = SECONDS


DEFAULT = Limits()


class Process:
    """A process that answers what it is asked of one file from outside, and ends with this object.

    Args:
        path: an ONNX file; it is checked before there is a process that could open it.
        module: what the process runs; it has a `Parent`, and the bytes of its address space as its argument.
        does: what it is for, as in "the process that runs it".
        limits: of the process.

    Raises:
        ConfigError: the file did not pass; see `check`.
    """

    def __init__(self, path: Path, module: str, does: str, limits: Limits) -> None:
        self.path, self.does, self.limits = path, does, limits
        size = check(path, limits.memory).size_bytes
        memory = limits.memory or max(LEAST_MEMORY, TIMES_THE_FILE * size)
        self.log_file = tempfile.TemporaryFile()  # noqa: SIM115  # not a pipe: nobody would read it while we wait
        self.process = _started(module, memory, self.log_file)
        self._end = weakref.finalize(self, _ended, self.process, self.log_file, os.getpid())

    def ask(self, head: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], dict[str, Array]]:
        """The answer to a message: JSON, and arrays by name.

        Raises:
            ForeignError: the process died, asked for too much memory or did not answer.
            ResourceError: the disk is full.
            RuntimeError: what is asked for failed there; with the error.
        """
        until = time.monotonic() + self.limits.seconds
        try:
            for part in pack(head, arrays):
                self._write(part, until)
            return unpack(lambda count: self._read(count, until), ANSWER)
        except FrameError as error:
            self.close()
            raise ForeignError(f"the process that {self.does} it answered with {error}", where=self._where) from error
        except BrokenPipeError:
            raise self._gone() from None

    def close(self) -> None:
        """End the process."""
        self._end()

    def _write(self, part: bytes, until: float) -> None:
        view = memoryview(part)
        while view:
            self._wait(_file(self.process.stdin), select.POLLOUT, until)
            view = view[_file(self.process.stdin).write(view) or 0 :]

    def _read(self, count: int, until: float) -> bytearray:
        buffer, stream = bytearray(), _file(self.process.stdout)
        while len(buffer) < count:  # memory is taken as bytes come, not on its word
            self._wait(stream, select.POLLIN, until)
            got = os.read(stream.fileno(), min(count - len(buffer), AT_ONCE))
            if not got:
                raise self._gone()
            buffer += got
        return buffer

    def _wait(self, stream: IO[bytes], event: int, until: float) -> None:
        poll = select.poll()
        poll.register(stream, event)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1_000):
            self.close()
            fix = "Raise `seconds` under `onnx:`, or do not trust this file"
            message = f"the process that {self.does} it did not answer within {self.limits.seconds:g} s"
            raise ForeignError(message, where=self._where, fix=fix)

    @property
    def _where(self) -> str:
        return f"model {self.path}"

    def _gone(self) -> Exception:
        """Why there is no answer: a crash, a full disk, or what a library said."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # it has closed its output, and lives
            code = -signal.SIGKILL
        self.log_file.seek(0)
        text = self.log_file.read().decode(errors="replace").strip()[-LAST:]
        self.close()
        last = text.splitlines()[-1] if text else "it said nothing"
        if code == 1 and any(word in last for word in FULL):
            return ResourceError(last, where=self._where, fix="Free some disk")
        if code == 1 and not any(word in last for word in LIMITED):
            return RuntimeError(last)
        why = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        fix = "Do not trust this file; where you do, raise `memory` under `onnx:`, or free some"
        return ForeignError(f"the process that {self.does} it {why}: {last}", where=self._where, fix=fix)


def _started(module: str, memory: int, log_file: IO[bytes]) -> subprocess.Popen[bytes]:
    """The process. Its standard input is a pipe that closes when this process dies."""
    # -P: what lies in the current folder under our names is not taken for ours.
    command = [sys.executable, "-P", "-m", module, str(memory)]
    environment = {name: value for name, value in os.environ.items() if name.startswith(NEEDED)}
    # Each of many threads would reserve much of the address space that is limited.
    environment |= {"MALLOC_ARENA_MAX": "4", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log_file,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is for us to answer
    )
    os.set_blocking(_file(process.stdin).fileno(), False)
    return process


def _ended(process: subprocess.Popen[bytes], log_file: IO[bytes], owner: int) -> None:
    if os.getpid() == owner:  # not of a loader's worker, which has a copy of all objects
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, log_file):
        if stream:
            stream.close()


def _file(stream: IO[bytes] | None) -> IO[bytes]:
    """A pipe of the process, which has both."""
    if stream is None:
        raise ValueError("the process has no such pipe")
    return stream
