"""OpenVINO on the CPU: an ONNX file."""

from typing import Any

import openvino

from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step

HEAVY = {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "GroupConvolution", "LSTMSequence", "GRUSequence"}
"""Layers whose precision is that of the model, as OpenVINO calls them."""


def load(spec: Spec) -> Loaded:
    """The file that `model` of the spec names, compiled once; `precision` is f32 or native."""
    streams = spec.get("concurrency", 1)  # requests that are computed at a time, each with its own threads
    options = {"INFERENCE_NUM_THREADS": spec["threads"] * streams, "NUM_STREAMS": str(streams)}
    if spec["precision"] == "f32":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = openvino.Core().compile_model(spec["model"], "CPU", options)

    def prepare(inputs: Arrays) -> Step:
        request = compiled.create_infer_request()
        feed = {_name(port, inputs): inputs[_name(port, inputs)] for port in compiled.inputs}
        return lambda: request.infer(feed, share_inputs=True)

    def answers(raw: Any) -> Arrays:
        return {port.get_any_name(): raw[port] for port in compiled.outputs}

    description = {"version": openvino.__version__, "execution_provider": "CPU", "precision": _precision(compiled)}
    threads = compiled.get_property("INFERENCE_NUM_THREADS")
    return Loaded(prepare, answers, {**description, "threads": threads}, concurrent=True)


def _name(port: Any, inputs: Arrays) -> str:
    """The name of an input among the several that it may have."""
    names: set[str] = port.get_names()
    return next(name for name in sorted(names) if name in inputs)


def _precision(compiled: Any) -> str:
    """What the heavy layers really run in, or all where none is heavy: f32, or i8, f32."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    names = ("layerType", "runtimePrecision")
    layers = [[one[name].astype(str) for name in names] for one in facts if all(name in one for name in names)]
    heavy = {precision for kind, precision in layers if kind in HEAVY}
    return ", ".join(sorted(heavy or {precision for _, precision in layers}))
