"""ONNX Runtime as it is on x86 without VNNI, where an emulator of such a CPU is installed."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EMULATOR = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
CPU = "Haswell"  # AVX2, no VNNI
RUN = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 4, 1
for model in Path(sys.argv[1]).glob("*.onnx"):
    feed = dict(np.load(model.with_suffix(".feed.npz")))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    np.savez(model.with_suffix(".outputs.npz"), *session.run(None, feed))
"""
needs_emulator = pytest.mark.skipif(
    EMULATOR is None, reason="needs an emulator: apt-get install qemu-user-static, or qemu-user"
)


def without_vnni(cases: Sequence[tuple[Path, dict[str, Any]]], folder: Path) -> list[list[Any]]:
    """The outputs of files for a feed each, as ONNX Runtime gives them on such a CPU; the folder gets copies."""
    folder.mkdir()
    for i, (path, feed) in enumerate(cases):
        shutil.copy(path, folder / f"{i}.onnx")
        np.savez(folder / f"{i}.feed.npz", **feed)
    command = [str(EMULATOR), "-cpu", CPU, sys.executable, "-c", RUN, str(folder)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=500)
    return [[*np.load(folder / f"{i}.outputs.npz").values()] for i in range(len(cases))]
