"""MNN on the CPU: a .mnn file, made of an ONNX file."""

from typing import Any

import MNN
import MNN.expr
import MNN.nn
import numpy as np

from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step


def convert(spec: Spec) -> None:
    """Write `model` of the spec from its ONNX file `source`. Where it cannot, it aborts or writes nothing."""
    # Not MNN.tools, which installs a package by pip and reports to its makers.
    import _tools

    files = ["--modelFile", spec["source"], "--MNNModel", spec["model"]]
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--bizCode", "MNN", *files])


def load(spec: Spec) -> Loaded:
    """The file `model` of the spec, whose inputs and outputs it names in their order."""
    options = {"backend": 0, "numThread": spec["threads"], "precision": "high"}
    manager = MNN.nn.create_runtime_manager((options,))
    inputs, outputs = spec["input_names"], spec["output_names"]
    module = MNN.nn.load_module_from_file(spec["model"], inputs, outputs, runtime_manager=manager)

    def prepare(arrays: Arrays) -> Step:
        feed = [_variable(arrays[name]) for name in inputs]
        return lambda: [MNN.expr.convert(value, MNN.expr.NCHW).read() for value in module.onForward(feed)]

    def answers(raw: Any) -> Arrays:
        return {name: np.array(value) for name, value in zip(outputs, raw, strict=True)}

    description = {
        "version": MNN.version(),
        "execution_provider": "CPU",
        "threads": spec["threads"],
        "precision": "f32",
    }
    return Loaded(prepare, answers, description)


def _variable(array: Any) -> Any:
    kinds = {"f": (MNN.expr.float, np.float32), "i": (MNN.expr.int, np.int32), "b": (MNN.expr.int, np.int32)}
    kind, dtype = kinds[array.dtype.kind]
    variable = MNN.expr.placeholder(list(array.shape), MNN.expr.NCHW, kind)
    variable.write(np.ascontiguousarray(array, dtype))
    return variable
