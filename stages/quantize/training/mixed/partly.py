"""A network of which some layers alone compute in integers, and the others in floats, with the weights that it has."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from pipeline.base.batches import Inputs
from pipeline.model import TorchModel
from stages.quantize.training.forward.calls import layer_of
from stages.quantize.training.forward.placement import PENDING, Call, Plan
from stages.quantize.training.module import FakeQuantization, part_of
from stages.trainer.objective import first, logits_first


class Partly:
    """The numbers of a part in some layers: their weights, biases and what they are the first to read.

    Args:
        part: the quantizers.
        layers: names of the layers.
    """

    def __init__(self, part: FakeQuantization, layers: Collection[str]) -> None:
        self.part, self.layers, self.owners = part, layers, owners(part.plan)

    def weight(self, name: str, weight: Tensor) -> Tensor:
        """A weight, rounded where its layer is among these."""
        return self.part.weight(name, weight) if layer_of(name) in self.layers else weight

    def activation(self, number: int, value: Tensor) -> Tensor:
        """A value, rounded where the layer that it counts to is among these."""
        return self.part.activation(number, value) if self.owners[number] in self.layers else value

    def call(self, number: int, call: Call, function: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """The result, with a bias that is rounded where its layer is among these."""
        if call.weights and layer_of(call.weights[0]) in self.layers:
            return self.part.call(number, call, function, args, named)
        return function(*args, **named)


def owners(plan: Plan) -> dict[int, str]:
    """For each quantizer of activations the layer that it counts to: the first that reads it, else the last before."""
    readers, givers, last = dict[int, str](), dict[int, str](), ""
    for call in plan.calls:
        if call.weights:
            last = layer_of(call.weights[0])
            for number in call.inputs.values():
                readers.setdefault(number, last)
        if call.output not in (None, PENDING):
            givers.setdefault(call.output, last)
    return givers | readers


def answers(model: TorchModel, layers: Collection[str], batches: Iterable[Inputs], output: str | None) -> list[Any]:
    """The output that counts for each batch, with these layers alone in integers: arrays (B, ...)."""
    part = part_of(model.module)
    with part.replaced(Partly(part, layers)):
        return [first(logits_first(model.predict(inputs), output)).numpy() for inputs in batches]
