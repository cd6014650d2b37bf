"""The process that quantizes an ONNX file from outside: `python -m stages.quantize.quantizing.child BYTES`.

It is told which steps to do, and asks for calibration data batch by batch; see `work` for the other end. Nothing is
unpickled on either side.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.forms.sandbox.frames import Arrays
from pipeline.forms.sandbox.parent import Parent
from stages.quantize.quantizing.calibration_data import CalibrationData
from stages.quantize.steps.do import do
from stages.quantize.steps.files import Files


def main(memory: int) -> None:
    """Do a step for each message, until the pipe closes.

    Args:
        memory: bytes of address space at most, and of a file that it writes; 0 for no limit.
    """
    parent = Parent(memory, memory)
    while True:
        message, _ = parent.asks()
        files = Files(Path(message["source"]), Path(message["target"]), message["external"])
        tempfile.tempdir = str(files.target.parent)  # what it leaves when it is killed goes with that folder
        data = CalibrationData(_batches(parent), message["batches"])
        done = do(message["step"], files, message["settings"], data)
        parent.answer({"done": True, **done._asdict()}, {})


def _batches(parent: Parent) -> Iterator[Arrays]:
    while True:
        parent.answer({"done": False}, {})
        yield parent.asks()[1]


if __name__ == "__main__":
    main(int(sys.argv[1]))
