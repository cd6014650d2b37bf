"""LiteRT on the CPU: a .tflite file, made of a program of torch.export."""

from importlib import metadata
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step

KINDS = {np.int8: "i8", np.float32: "f32"}


def convert(spec: Spec) -> None:
    """Write `model` of the spec from its `source`, an ONNX file or what torch.export.save wrote."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    from stages.benchmark.runners.edge.imported.network import Backend
    from stages.benchmark.runners.edge.imported.program import program_of

    program = program_of(spec, Backend(holds_integers=False, ranges=False))
    example, _ = program.example_inputs
    # The quantizer is not run: it says that the program has quantized values, which become integers.
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config())
    config = QuantConfig(pt2e_quantizer=quantizer) if "quantized_decomposed" in program.graph_module.code else None
    litert_torch.convert(program.module(), example, quant_config=config).export(spec["model"])


def load(spec: Spec) -> Loaded:
    """The file `model` of the spec, whose inputs and outputs it names in their order.

    Inputs and outputs of a quantized file are integers: an inference begins with floats and ends with them.
    """
    interpreter = Interpreter(spec["model"], num_threads=spec["threads"])
    interpreter.allocate_tensors()
    signature = interpreter.get_signature_runner()
    inputs, details = signature.get_input_details(), signature.get_output_details()
    outputs = [details[f"output_{i}"] for i in range(len(details))]

    def prepare(arrays: Arrays) -> Step:
        feed = [
            (detail, arrays[name])
            for i, name in enumerate(spec["input_names"])
            if (detail := inputs.get(f"args_{i}"))  # what the model does not read is no input any more
        ]
        return lambda: _run(interpreter, feed, outputs)

    def answers(raw: Any) -> Arrays:
        return dict(zip(spec["output_names"], raw, strict=True))

    kinds = {kind for detail in interpreter.get_tensor_details() if (kind := KINDS.get(detail["dtype"]))}
    description = {
        "version": metadata.version("ai-edge-litert"),
        "execution_provider": "XNNPACK",
        "threads": spec["threads"],
        "precision": ", ".join(sorted(kinds)),
    }
    return Loaded(prepare, answers, description)


def _run(interpreter: Any, feed: list[tuple[Any, Any]], outputs: list[Any]) -> list[Any]:
    for detail, value in feed:
        interpreter.set_tensor(detail["index"], _given(value, detail))
    interpreter.invoke()
    return [_taken(interpreter.get_tensor(detail["index"]), detail) for detail in outputs]


def _given(value: Any, detail: Any) -> Any:
    """A value as the file takes it: in its integers, and with 32 bits where torch has 64."""
    scale, zero_point = detail["quantization"]
    if scale and value.dtype.kind == "f":
        value = np.clip(np.rint(value / scale + zero_point), -128, 127)
    return value.astype(detail["dtype"])


def _taken(value: Any, detail: Any) -> Any:
    scale, zero_point = detail["quantization"]
    return (value.astype(np.float32) - zero_point) * np.float32(scale) if scale else value
