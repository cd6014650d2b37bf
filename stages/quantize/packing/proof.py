"""The proof that a packed file does what the one before did: outputs to the bit, by the same operators."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import onnx
from pydantic import JsonValue
from torch import Tensor

from pipeline.base.batches import Inputs
from pipeline.model import OnnxModel
from stages.quantize.quantizing.work import Work, worker
from stages.quantize.steps.files import Files

ROUNDS = 2
NO_PEAK = "this system does not tell the most memory that a process held"


class Behaviour(NamedTuple):
    """What a file does.

    Args:
        outputs: for each batch a digest of each output, by name.
        operators: how many of each there are in the graph as ONNX Runtime runs it.
    """

    outputs: list[dict[str, str]]
    operators: Counter[str]


def behaviour(model: OnnxModel, batches: Iterable[Inputs]) -> Behaviour:
    """What a file does with batches of the task's inputs."""
    outputs = [{name: _digest(value) for name, value in model.predict(batch).items()} for batch in batches]
    model.close()
    return Behaviour(outputs, operators(model))


def operators(model: OnnxModel) -> Counter[str]:
    """How many nodes of each operator ONNX Runtime runs, after its optimizations."""
    with TemporaryDirectory() as folder, worker(model) as do:
        target = Path(folder) / "optimized.onnx"
        do(Work("optimized"), Files(model.path.absolute(), target, external=False))
        graph = onnx.load(target, load_external_data=False).graph
    return Counter(node.op_type for node in graph.node)


def difference(before: Behaviour, after: Behaviour) -> str:
    """What differs, as a clause; "" where the outputs are equal to the bit and the same operators run."""
    if before.operators != after.operators:
        less, more = before.operators - after.operators, after.operators - before.operators
        return f"ONNX Runtime runs other operators: {_counts(less)} less and {_counts(more)} more"
    for i, (old, new) in enumerate(zip(before.outputs, after.outputs, strict=True)):
        if different := [name for name, digest in old.items() if new.get(name) != digest]:
            return f"its output `{different[0]}` differs for batch {i} of the calibration split"
    return ""


def _digest(value: Tensor) -> str:
    head = f"{value.dtype} {tuple(value.shape)}"
    return sha256(head.encode() + value.contiguous().numpy().tobytes()).hexdigest()


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"


def loading(before: OnnxModel, after: OnnxModel) -> dict[str, JsonValue]:
    """Milliseconds that a fresh process takes to load each file, and the most bytes of memory that it holds then.

    Both are the least of processes that take turns. What the system does not tell is null, with the reason.
    """
    times: dict[str, list[float]] = {"before": [], "after": []}
    peaks: dict[str, list[int]] = {"before": [], "after": []}
    for _ in range(ROUNDS):
        for name, model in (("before", before), ("after", after)):
            child = replace(model).child
            times[name].append(child.load_ms)
            peaks[name] += [child.peak_bytes] if child.peak_bytes else []
            child.close()
    load: dict[str, JsonValue] = {name: min(some) for name, some in times.items()}
    if not all(peaks.values()):
        return {"load_ms": load, "peak_bytes": None, "peak_bytes_reason": NO_PEAK}
    return {"load_ms": load, "peak_bytes": {name: min(some) for name, some in peaks.items()}}
