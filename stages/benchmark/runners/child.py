"""The fresh process that runs one model: `python -m stages.benchmark.runners.child spec.json`.

It reads a spec, writes what it measured to the file that the spec names, and imports no more than its runtime needs:
torch alone would cost an ONNX measurement two seconds.
"""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, read_batches, write_batches
from stages.benchmark.runners.measures.energy import meter
from stages.benchmark.runners.measures.sampling import FEWEST, sample, warm

BEGAN = monotonic()
"""When this file was read, for a spec that does not say when the process began."""


def main(spec_path: Path) -> None:
    """Load what the spec describes, and time it or have it answer.

    Args:
        spec_path: a JSON object: `runner`, the name of a file beside this one or the path of one of a user's, whose
            load(spec) loads the model; `model`, the file or folder that it loads, and whatever else it reads;
            `threads`; `result`, the file to write; `began`, when the process was started, on the clock of `monotonic`.
            To time: `inputs`, an .npz of one batch; `warmup` calls; `iterations`, or `seconds` and the `fewest`
            samples; or `concurrency`, for the throughput of so many requests at a time. To answer: `batches`, as
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
    elif spec.get("concurrency"):
        content["throughput"] = shared(loaded, spec)
    else:
        times, first = time(loaded, spec)
        peak = resident("VmHWM")
        memory = {"peak_bytes": peak, "above_imports_bytes": peak - before} if peak and before else None
        content |= times | {"startup": {**started, "first_s": first / 1e9}, "memory": memory}
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


def time(loaded: Loaded, spec: Spec) -> tuple[dict[str, Any], int]:
    """The nanoseconds of each inference and the energy of one, and the nanoseconds of the very first."""
    step = loaded.prepare(fed(spec))
    dropped = warm(step, spec["warmup"])
    counters = meter()
    before = counters.read()
    samples = sample(step, spec["seconds"], spec["iterations"], spec.get("fewest", FEWEST))
    energy = counters.since(before, len(samples))
    return {"samples_ns": samples, "energy": energy}, (dropped or samples)[0]


def shared(loaded: Loaded, spec: Spec) -> dict[str, Any]:
    """The throughput of requests at a time, or the `reason` why the runtime takes one at a time."""
    count = spec["concurrency"]
    if count > 1 and not loaded.concurrent:
        return {"reason": "a model that it has loaded takes one request at a time"}
    from stages.benchmark.runners.measures.throughput import throughput  # threads are imported where there are some

    return {**throughput(loaded, fed(spec), count, spec["warmup"], spec["seconds"])}


def fed(spec: Spec) -> Arrays:
    """The inputs of one inference."""
    with np.load(spec["inputs"], allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def answer(loaded: Loaded, spec: Spec) -> None:
    """Write the outputs for each batch before the next one is read."""
    outputs = (loaded.answers(loaded.prepare(batch)()) for batch in read_batches(Path(spec["batches"])))
    write_batches(outputs, Path(spec["answers"]))


def resident(name: str) -> int | None:
    """Bytes of memory that this process holds, VmRSS, or held at most, VmHWM; None where the system does not tell.

    The peak that getrusage gives would be no less than the parent's: it is kept when a child becomes another program.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
