"""ONNX Runtime on the CPU with a wait, without sleep, of so large a share of what each inference took."""

from dataclasses import replace
from time import perf_counter_ns
from typing import Any

from stages.benchmark.runners import onnxruntime
from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step


def load(spec: Spec) -> Loaded:
    """The file `model` of the spec; `share` is how much longer it takes."""
    loaded = onnxruntime.load(spec)

    def prepare(inputs: Arrays) -> Step:
        step = loaded.prepare(inputs)

        def longer() -> Any:
            began = perf_counter_ns()
            outputs = step()
            end = began + (perf_counter_ns() - began) * (1 + spec["share"])
            while perf_counter_ns() < end:
                pass
            return outputs

        return longer

    return replace(loaded, prepare=prepare)
