"""The process that runs one ONNX file from outside: `python -m pipeline.foreign.child BYTES`.

It is told by its standard input what to load, then what to predict, and answers by its standard output; see `frames`.
What is raised ends it with exit code 1 and the error as the last line on standard error. It imports no torch, and
nothing is unpickled on either side.
"""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from pipeline.foreign.frames import Arrays, pack, unpack

UNLIMITED = 2**62  # what comes from our own side may be of any size
MOST_WRITTEN = 2**26  # bytes of a file; it writes none but what it says on standard error


def main(memory: int) -> None:
    """Load what the first message names, then answer each further one, until the pipe closes.

    Args:
        memory: bytes of address space at most; 0 for no limit.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    sys.excepthook = _in_one_line
    _limit(memory)
    session = _session(unpack(_read, UNLIMITED)[0])
    inputs, outputs = ([port.name for port in ports] for ports in (session.get_inputs(), session.get_outputs()))
    _write(answers, {"inputs": inputs, "outputs": outputs}, {})
    while True:
        _, feed = unpack(_read, UNLIMITED)
        _write(answers, {}, dict(zip(outputs, session.run(outputs, feed), strict=True)))


def _session(told: dict[str, Any]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not told["optimize"]:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # With a path, so that external data are found; with one provider, so that nothing else takes over.
    return onnxruntime.InferenceSession(Path(told["path"]), options, providers=["CPUExecutionProvider"])


def _limit(memory: int) -> None:
    """Keep this process below so many bytes, and let it write no files, such as an image of itself when it crashes."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WRITTEN, MOST_WRITTEN))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _read(count: int) -> bytearray:
    """The next bytes of standard input; ends the process where there are none any more."""
    found = bytearray(count)
    view = memoryview(found)
    while view:
        got = os.readv(0, [view])
        if not got:
            sys.exit(0)
        view = view[got:]
    return found


def _write(answers: BinaryIO, head: dict[str, Any], arrays: Arrays) -> None:
    for part in pack(head, arrays):
        answers.write(part)
    answers.flush()


def _in_one_line(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    sys.stderr.write(f"\n{kind.__name__}: {' '.join(str(error).split())}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
