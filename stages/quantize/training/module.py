"""The edit behind quantization-aware training: a module whose forward is quantized, with its quantizers inside."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.forms.text.remapped import split
from stages.quantize.training.files import Constants
from stages.quantize.training.forward.placement import Call, Plan
from stages.quantize.training.forward.running import Numbers, Plain, Running
from stages.quantize.training.numbers.fake import rounded
from stages.quantize.training.numbers.quantizers import ActivationQuantizer, WeightQuantizer
from stages.quantize.training.numbers.schemes import Scheme

USE = "stages.quantize.training.module:quantize"
PART = "fake_quantization"


class FakeQuantization(nn.Identity):  # an nn.Sequential runs it, as the last of its parts
    """All quantizers of a module; its `Numbers` while it is trained.

    Args:
        plan: of the module.
        shapes: of the weights, by name.
        schemes: which integers each weight may take.
        signed: whether activations are int8; else uint8.
    """

    def __init__(
        self, plan: Plan, shapes: Mapping[str, tuple[int, ...]], schemes: Mapping[str, Scheme], signed: bool
    ) -> None:
        super().__init__()
        self.plan, self.schemes, self.signed = plan, dict(schemes), signed
        self.names = {name: number for number, name in enumerate(plan.axes)}
        self.weights = nn.ModuleList(
            WeightQuantizer(shapes[name], axis, schemes[name]) for name, axis in plan.axes.items()
        )
        self.activations = nn.ModuleList(ActivationQuantizer(signed, bound) for bound in plan.bounds)

    def of_weight(self, name: str) -> WeightQuantizer:
        """The quantizer of a weight."""
        return cast(WeightQuantizer, self.weights[self.names[name]])

    def of_activation(self, number: int) -> ActivationQuantizer:
        """The quantizer of that number."""
        return cast(ActivationQuantizer, self.activations[number])

    def start(self, parameters: Mapping[str, Tensor]) -> None:
        """Begin with steps and codebooks that fit the weights."""
        for name in self.names:
            self.of_weight(name).start(parameters[name])

    def numbers(self) -> Numbers:
        """What quantized values are in this moment."""
        return self

    @contextmanager
    def replaced(self, numbers: Numbers) -> Iterator[None]:
        """Have others stand in the place of its own."""
        self.__dict__["numbers"] = lambda: numbers
        try:
            yield
        finally:
            del self.__dict__["numbers"]

    def weight(self, name: str, weight: Tensor) -> Tensor:
        """What integers leave of a weight."""
        result: Tensor = self.of_weight(name)(weight)
        return result

    def activation(self, number: int, value: Tensor) -> Tensor:
        """What 8 bits leave of a value."""
        result: Tensor = self.of_activation(number)(value)
        return result

    def call(self, number: int, call: Call, function: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """The result, with the bias as an integer of 32 bits where the kernel adds it as one."""
        if call.bias is not None:
            args = (*args[:2], self.bias(call, args[2]), *args[3:])
        return function(*args, **named)

    def bias(self, call: Call, bias: Tensor) -> Tensor:
        """A bias in steps of what the product of input and weight has, as ONNX Runtime rounds it."""
        step = self.of_activation(call.inputs[0]).step * self.of_weight(call.weights[0]).step.detach()
        return rounded(bias / step) * step

    def constants(self, module: nn.Module) -> Constants:
        """The same as ONNX writes it, with the integers of a module's weights, which gets them as buffers."""
        parameters = dict(module.named_parameters(remove_duplicate=False))
        integers = {name: self.of_weight(name).integers(parameters[name]) for name in self.names}
        parts = [self.of_activation(number) for number in range(len(self.activations))]
        scales = [(part.step, part.zero_point.to(part.dtype)) for part in parts]
        with torch.no_grad():
            calls = enumerate(self.plan.calls)
            biases = {n: self.bias(call, parameters[call.bias]) for n, call in calls if call.bias is not None}
        return Constants(module, self.plan, integers, scales, biases)


class Jittered:
    """The numbers of a part, with every value moved by up to half a step before it is rounded."""

    def __init__(self, part: FakeQuantization) -> None:
        self.part, self.generator = part, torch.Generator().manual_seed(0)
        self.weight, self.call = part.weight, part.call

    def activation(self, number: int, value: Tensor) -> Tensor:
        """What 8 bits leave of a value near it."""
        noise = torch.rand(value.shape, generator=self.generator).to(value.device) - 0.5
        return self.part.activation(number, value + noise * self.part.of_activation(number).step)


def quantize(module: nn.Module, plan: Mapping[str, Any], schemes: Mapping[str, Scheme], activations: str) -> nn.Module:
    """The module with a forward that follows the plan; its layers and weights keep their names.

    Args:
        module: it is changed.
        plan: of a `Plan`, as JSON.
        schemes: which integers each weight may take.
        activations: "uint8" or "int8".

    Raises:
        StageError: it has one already, or lacks a weight of the plan.
    """
    core = split(module)[0]
    planned = Plan.from_json(plan)
    parameters = dict(core.named_parameters(remove_duplicate=False))
    if missing := [name for name in planned.axes if name not in parameters]:
        raise StageError(f"the module has no weight `{missing[0]}`", expected="the module that was planned")
    if hasattr(core, PART):
        raise StageError(f"the module has a part `{PART}`", expected="one that is not quantized")
    shapes = {name: tuple(parameters[name].shape) for name in planned.axes}
    core.add_module(PART, FakeQuantization(planned, shapes, schemes, activations == "int8"))
    core.__class__ = _quantized_class(type(core))
    return module


def part_of(module: nn.Module) -> FakeQuantization:
    """The quantizers of a module. Raises StageError where it has none."""
    part = getattr(split(module)[0], PART, None)
    if not isinstance(part, FakeQuantization):
        raise StageError("the module is not quantized", expected=f"one with a part `{PART}`")
    return part


@contextmanager
def observed(module: nn.Module, look: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Have the module compute in floats, and look(number, value) see what each quantizer would be given."""
    with part_of(module).replaced(Plain(look)):
        yield


def _quantized_class(kind: type[nn.Module]) -> type[nn.Module]:
    """A subclass whose forward runs in the mode of the plan."""

    @wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **named: Any) -> Any:
        part: Any = getattr(self, PART)
        running = Running(part.plan, self, part.numbers())
        with running:
            result = kind.forward(self, *args, **named)
        running.finish()
        return result

    def for_export(self: nn.Module) -> nn.Module:
        """A copy whose forward writes QuantizeLinear and DequantizeLinear where it is traced for ONNX."""
        other = copy.deepcopy(self)
        setattr(other, PART, part_of(self).constants(other))
        return other

    def rounded_otherwise(self: nn.Module) -> AbstractContextManager[None]:
        """Has its values rounded up or down at random."""
        return part_of(self).replaced(Jittered(part_of(self)))

    own = {"forward": forward, "for_export": for_export, "rounded_otherwise": rounded_otherwise}
    return type(f"Quantized{kind.__name__}", (kind,), own)
