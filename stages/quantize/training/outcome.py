"""What became of a network that was trained with integers, as the record says it."""

from pydantic import JsonValue

from pipeline.forms.text.remapped import split
from pipeline.model import TorchModel
from stages.quantize.training.module import PART, part_of
from stages.quantize.training.numbers.schemes import count


def report_of(model: TorchModel) -> dict[str, JsonValue]:
    """For each weight its scheme, what reads it and how that computes, and how many zeros it has."""
    part = part_of(model.module)
    parameters = dict(split(model.module)[0].named_parameters())
    readers = {name: call for call in part.plan.calls for name in call.weights}
    weights: dict[str, JsonValue] = {}
    for name in part.names:
        weight, scheme = parameters[name], part.schemes[name]
        weights[name] = {
            "bits": scheme,
            "values": count(scheme),
            "read_by": readers[name].name,
            "kernel": "integer" if readers[name].inputs else "lookup" if readers[name].name == "embedding" else "fp32",
            "zeros": int((weight == 0).sum()),
        }
    return {
        "weights": weights,
        "activations": {"type": "int8" if part.signed else "uint8", "quantized": len(part.activations)},
        "fp32": {**in_floats(model)},
    }


def in_floats(model: TorchModel) -> dict[str, int]:
    """How many numbers each weight has that is not quantized, by name."""
    part, parameters = part_of(model.module), split(model.module)[0].named_parameters()
    others = {n: p for n, p in parameters if n not in part.names and not n.startswith(f"{PART}.")}
    return {name: parameter.numel() for name, parameter in others.items() if parameter.dim() > 1}
