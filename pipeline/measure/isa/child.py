"""The process that rewrites an ONNX file from outside: `python -m pipeline.measure.isa.child BYTES`.

It is told the files and how; see `emulate`. Nothing is unpickled on either side.
"""

import sys
from pathlib import Path

from pipeline.errors import StageError
from pipeline.forms.sandbox.parent import Parent
from pipeline.measure.isa.work import write_emulated


def main(memory: int) -> None:
    """Rewrite a file for each message, until the pipe closes.

    Args:
        memory: bytes of address space at most, and of a file that it writes; 0 for no limit.
    """
    parent = Parent(memory, memory)
    while True:
        message, _ = parent.asks()
        try:
            layers = write_emulated(Path(message["source"]), Path(message["target"]), **message["how"])
        except StageError as error:  # what is wrong with the file, not with this process
            parts = {"found": error.found, "expected": error.expected, "fix": error.fix}
            parent.answer({"error": type(error).__name__, "parts": parts}, {})
        else:
            parent.answer({"layers": layers}, {})


if __name__ == "__main__":
    main(int(sys.argv[1]))
