"""The process that runs one ONNX file from outside: `python -m pipeline.forms.sandbox.child BYTES`.

It is told what to load, then what to predict; see `parent`. It imports no torch, and nothing is unpickled on either
side.
"""

import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.forms.sandbox.parent import Parent

MOST_WRITTEN = 2**26  # bytes of a file; it writes none but what it says on standard error


def main(memory: int) -> None:
    """Load what the first message names, then answer each further one, until the pipe closes.

    Args:
        memory: bytes of address space at most; 0 for no limit.
    """
    parent = Parent(memory, MOST_WRITTEN)
    request, _ = parent.asks()
    import onnxruntime  # noqa: F401  # which takes time that is not the file's

    start = perf_counter()
    session = open_session(Path(request["path"]), optimize=request["optimize"])
    took = {"load_ms": 1e3 * (perf_counter() - start), "peak_bytes": peak_bytes()}
    inputs, outputs = ([port.name for port in ports] for ports in (session.get_inputs(), session.get_outputs()))
    parent.answer({"inputs": inputs, "outputs": outputs, **took}, {})
    while True:
        _, feed = parent.asks()
        parent.answer({}, dict(zip(outputs, session.run(outputs, feed), strict=True)))


def peak_bytes() -> int | None:
    """The most memory that this process has held; None where the system does not tell."""
    # Not getrusage's: on Linux that begins with what the process held that this one was forked from.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def open_session(path: Path, *, optimize: bool) -> Any:
    """A file's session in ONNX Runtime on the CPU, with its graph rewritten or as it is."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # With a path, so that external data are found; with one provider, so that nothing else takes over.
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
