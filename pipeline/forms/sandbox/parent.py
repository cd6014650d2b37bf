"""The other end of the pipes of `process`: in a child, the process that started it."""

import os
import select
import sys
import threading
from types import TracebackType
from typing import Any

from pipeline.forms.sandbox.frames import Arrays, pack, unpack

UNLIMITED = 2**62  # what comes from our own side may be of any size


class Parent:
    """Who asks, by this process's standard input, and is answered, by its standard output; see `frames`.

    What is raised from here on ends this process with exit code 1 and the error as the last line on standard error. It
    ends with 0 when the pipe closes, also while it computes, for then nobody waits for an answer any more.

    Args:
        memory: bytes of address space of this process at most; 0 for no limit.
        written: bytes of a file that it writes at most; 0 for no limit.
    """

    def __init__(self, memory: int, written: int) -> None:
        self._answers = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # what a library prints is no answer
        sys.excepthook = _in_one_line
        threading.Thread(target=_end_when_it_hangs_up, daemon=True).start()
        _limit(memory, written)  # after the thread, which a small limit would not let begin

    def asks(self) -> tuple[dict[str, Any], Arrays]:
        """The next message: JSON, and arrays by name."""
        return unpack(_read, UNLIMITED)

    def answer(self, head: dict[str, Any], arrays: Arrays) -> None:
        """Send a message; each that came gets one."""
        for part in pack(head, arrays):
            self._answers.write(part)
        self._answers.flush()


def _limit(memory: int, written: int) -> None:
    """Keep this process below so many bytes, and let it write no image of itself when it crashes."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit, most in ((resource.RLIMIT_FSIZE, written), (resource.RLIMIT_AS, memory)):
        if most:
            resource.setrlimit(limit, (most, most))


def _end_when_it_hangs_up() -> None:
    poll = select.poll()
    poll.register(0, 0)  # of nothing but that the other end is closed
    poll.poll()
    os._exit(0)


def _read(count: int) -> bytearray:
    """The next bytes of standard input; ends the process where there are none any more."""
    buffer = bytearray(count)
    view = memoryview(buffer)
    while view:
        got = os.readv(0, [view])
        if not got:
            sys.exit(0)
        view = view[got:]
    return buffer


def _in_one_line(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    sys.stderr.write(f"\n{kind.__name__}: {' '.join(str(error).split())}\n")
