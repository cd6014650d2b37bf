"""The fresh process that runs one model: `python -m stages.benchmark.runners.child spec.json`.

It reads a spec, writes what it measured to the file that the spec names, and imports no more than its runtime needs:
torch alone would cost an ONNX measurement two seconds.
"""

import gc
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any

import numpy as np

from stages.benchmark.runners.loaded import Loaded, Spec, Step, read_batches, write_batches

BEGAN = monotonic()
"""When this file was read, for a spec that does not say when the process began."""

FEWEST = 5
"""Samples at least, however long one takes."""


def main(spec_path: Path) -> None:
    """Load what the spec describes, and time it or have it answer.

    Args:
        spec_path: a JSON object: `runner`, the name of a file beside this one or the path of one of a user's, whose
            load(spec) loads the model; `model`, the file or folder that it loads, and whatever else it reads;
            `threads`; `result`, the file to write; `began`, when the process was started, on the clock of `monotonic`.
            To time: `inputs`, an .npz of one batch; `warmup` calls; `iterations` or `seconds`. To answer: `batches`, as
            `write_batches` writes them, and `answers`, the file for the outputs.
    """
    spec = json.loads(spec_path.read_text())
    module = runner(spec["runner"])
    imported, before = monotonic(), resident("VmRSS")
    loaded = module.load(spec)
    started = {"imports_s": imported - spec.get("began", BEGAN), "load_s": monotonic() - imported}
    content: dict[str, Any] = {"description": loaded.description}
    if "answers" in spec:
        answer(loaded, spec)
    else:
        samples, first = time(loaded, spec)
        peak = resident("VmHWM")
        memory = {"peak_bytes": peak, "above_imports_bytes": peak - before} if peak and before else None
        content |= {"samples_ns": samples, "startup": {**started, "first_s": first / 1e9}, "memory": memory}
    Path(spec["result"]).write_text(json.dumps(content))


def runner(name: str) -> Any:
    """The module of a runner, by the name of a file beside this one or by the path of a user's."""
    if not name.endswith(".py"):
        return importlib.import_module(f"stages.benchmark.runners.{name}")
    source = importlib.util.spec_from_file_location(Path(name).stem, name)
    if source is None or source.loader is None:
        sys.exit(f"{name} is no file of Python")
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


def time(loaded: Loaded, spec: Spec) -> tuple[list[int], int]:
    """The nanoseconds of each inference, and of the very first."""
    with np.load(spec["inputs"], allow_pickle=False) as arrays:
        inputs = {name: arrays[name] for name in arrays.files}
    return sample(loaded.prepare(inputs), spec["warmup"], spec["seconds"], spec["iterations"])


def answer(loaded: Loaded, spec: Spec) -> None:
    """Write the outputs for each batch before the next one is read."""
    outputs = (loaded.answers(loaded.prepare(batch)()) for batch in read_batches(Path(spec["batches"])))
    write_batches(outputs, Path(spec["answers"]))


def sample(step: Step, warmup: int, seconds: float, iterations: int | None) -> tuple[list[int], int]:
    """Nanoseconds of each call of `step`, and of the very first one, which the warm-up may have taken.

    Args:
        step: one inference.
        warmup: calls before, made and timed in the same way and then dropped.
        seconds: how long to go on, but at least `FEWEST` calls; used where `iterations` is None.
        iterations: number of calls.
    """
    dropped = [_timed(step) for _ in range(warmup)]
    gc.disable()  # as timeit does: a collection would hit one sample at random
    samples: list[int] = []
    end = perf_counter_ns() + int(seconds * 1e9)
    while len(samples) < (iterations or FEWEST) or (not iterations and perf_counter_ns() < end):
        samples.append(_timed(step))
    gc.enable()
    return samples, (dropped or samples)[0]


def resident(name: str) -> int | None:
    """Bytes of memory that this process holds, VmRSS, or held at most, VmHWM; None where the system does not tell.

    The peak that getrusage gives would be no less than the parent's: it is kept when a child becomes another program.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def _timed(step: Step) -> int:
    start = perf_counter_ns()
    step()
    return perf_counter_ns() - start


if __name__ == "__main__":
    main(Path(sys.argv[1]))
