"""The proof that a stage's file became faster: taken from the store of this machine, or measured; and what it says."""

import json
from collections.abc import Iterator
from dataclasses import replace

from pipeline.base.formatting import few, interval_text
from pipeline.errors import StageError
from pipeline.measure.kernels.compared import SLOWER
from pipeline.measure.kernels.kernels import is_another_graph, kernels_of
from pipeline.measure.measurement import MeasuredModel
from pipeline.model import OnnxModel
from pipeline.records.parts.kernels import Kernels
from pipeline.run.executor import Executor
from pipeline.run.result import Result
from pipeline.run.store.store import RESULT, claimed

UNSEEN = "kernels are not looked at: an encoder-decoder has several graphs. benchmark.latency times it"


def proven(executor: Executor, place: str, result: Result, before: MeasuredModel, after: MeasuredModel) -> Result:
    """A stage's result with how its file runs here beside the one that came in, and what that says.

    Nothing is said of a stage that only measured or trained: neither operators nor shapes are others.
    """
    one, other = before.deployed, after.deployed
    if before.digest == after.digest:
        return result
    if not isinstance(one, OnnxModel) or not isinstance(other, OnnxModel):
        is_unseen = not isinstance(one, OnnxModel) and not isinstance(other, OnnxModel)
        return replace(result, notes=(*result.notes, UNSEEN)) if is_unseen else result
    if not is_another_graph(one, other):
        return result
    parts = executor.keys.kernels(before.key, after.key)
    with claimed(executor.store, executor.journal, f"{place}, kernels", parts) as claim:
        if not claim.cached:
            with claim.filling() as to:
                (to / RESULT).write_text(kernels_of(one, other).model_dump_json())
        kernels = Kernels(**json.loads((claim.path / RESULT).read_text()))
    warnings = doubts(kernels) if executor.built.config.slower != "ignore" else ()
    return replace(
        result,
        kernels=kernels,
        uses=(*result.uses, claim.key),
        notes=(*result.notes, *said(kernels)),
        warnings=(*result.warnings, *warnings),
    )


def said(kernels: Kernels) -> Iterator[str]:
    """The share of MACs in integers and the time, in a line; nothing where there is nothing to say."""
    integers = any(row.integer for row in kernels.operators)
    parts = [f"{kernels.integer_macs:.0%} of MACs in integers"] if integers and kernels.integer_macs is not None else []
    if kernels.ratio and not kernels.slower and (parts or kernels.ratio.high < 1 / SLOWER):
        parts.append(f"takes {interval_text(kernels.ratio, 2)} of the time of what came in")
    elif not kernels.ratio:
        parts.append(f"not timed: {kernels.ratio_reason}")
    if parts:
        yield ", ".join(parts)


def doubts(kernels: Kernels) -> Iterator[str]:
    """What is to be warned of."""
    if kernels.slower:
        yield _slower(kernels)
    for alarm in kernels.alarms:
        yield f"{alarm.pattern}: {few(alarm.nodes)}: {alarm.why}. {alarm.remedy}"


def refuse(place: str, kernels: Kernels | None, slower: str) -> None:
    """Raise StageError where a file is slower and the config's `slower` is "fail"."""
    if kernels and kernels.slower and slower == "fail":
        remedies = [f"{alarm.pattern}: {alarm.remedy}" for alarm in kernels.alarms]
        fix = ". ".join([*remedies, "Leave the stage out, or set `slower: warn`"])
        raise StageError(_slower(kernels), where=place, expected="a file that is not slower (`slower: fail`)", fix=fix)


def _slower(kernels: Kernels) -> str:
    floats = [f"{row.operator} {few(row.nodes)}: {row.why}" for row in kernels.floats[:1]]
    why = f"; in floats: {floats[0]}" if floats and not kernels.alarms else ""
    ratio = interval_text(kernels.ratio, 2)
    return f"its file is slower than what came in: it takes {ratio} of the time in ONNX Runtime on this machine{why}"
