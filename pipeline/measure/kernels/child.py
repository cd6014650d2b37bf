"""The process that runs ONNX files from outside to see their kernels: `python -m pipeline.measure.kernels.child BYTES`.

It is told which file to look at, or which two to run in turns. It imports no torch, and nothing is unpickled on either
side.
"""

import sys
from pathlib import Path

from pipeline.forms.sandbox.frames import Arrays
from pipeline.forms.sandbox.parent import Parent
from pipeline.measure.kernels.look import look
from pipeline.measure.kernels.turns import Timed, in_turns

FEEDS = ("one.", "other.")
"""How the names of arrays begin, by the file that takes them."""


def main(memory: int) -> None:
    """Answer each message, until the pipe closes.

    Args:
        memory: bytes of address space at most, and of a file that it writes; 0 for no limit.
    """
    parent = Parent(memory, memory)
    while True:
        message, arrays = parent.asks()
        if message["do"] == "look":
            parent.answer(look(Path(message["path"]), arrays, message["runs"], Path(message["target"])), {})
        else:
            pair = [Timed(Path(message[start]), fed(arrays, start)) for start in FEEDS]
            one, other = in_turns(*pair)
            parent.answer({"one": one, "other": other}, {})


def fed(arrays: Arrays, start: str) -> Arrays:
    """The arrays of one file, by its names."""
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


if __name__ == "__main__":
    main(int(sys.argv[1]))
