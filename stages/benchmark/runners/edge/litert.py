"""LiteRT on the CPU: a .tflite file, made of a program of torch.export."""

from importlib import metadata
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step


def convert(spec: Spec) -> None:
    """Write `model` of the spec from its `source`, what torch.export.save wrote."""
    import litert_torch
    import torch

    program = torch.export.load(spec["source"])
    example, _ = program.example_inputs
    litert_torch.convert(program.module(), example).export(spec["model"])


def load(spec: Spec) -> Loaded:
    """The file `model` of the spec, whose inputs and outputs it names in their order."""
    interpreter = Interpreter(spec["model"], num_threads=spec["threads"])
    interpreter.allocate_tensors()
    signature = interpreter.get_signature_runner()
    inputs, outputs = signature.get_input_details(), signature.get_output_details()
    places = [outputs[f"output_{i}"]["index"] for i in range(len(outputs))]

    def prepare(arrays: Arrays) -> Step:
        # It has 32 bits where torch has 64.
        feed = [
            (detail["index"], arrays[name].astype(detail["dtype"]))
            for i, name in enumerate(spec["input_names"])
            if (detail := inputs.get(f"args_{i}"))  # what the model does not read is no input any more
        ]
        return lambda: _run(interpreter, feed, places)

    def answers(raw: Any) -> Arrays:
        return dict(zip(spec["output_names"], raw, strict=True))

    description = {
        "version": metadata.version("ai-edge-litert"),
        "execution_provider": "XNNPACK",
        "threads": spec["threads"],
        "precision": "f32",
    }
    return Loaded(prepare, answers, description)


def _run(interpreter: Any, feed: list[tuple[int, Any]], places: list[int]) -> list[Any]:
    for place, value in feed:
        interpreter.set_tensor(place, value)
    interpreter.invoke()
    return [interpreter.get_tensor(place) for place in places]
