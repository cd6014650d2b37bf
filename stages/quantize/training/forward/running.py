"""A forward that follows its plan: weights and values are quantized on their way into and out of its calls."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from pipeline.errors import StageError
from stages.quantize.training.forward.calls import (
    ADDITIONS,
    CARRIED,
    CLIPS,
    MOVES,
    PARAMETERS,
    name_of,
    positional,
    tensors,
)
from stages.quantize.training.forward.placement import PENDING, Call, Plan
from stages.quantize.training.forward.records import Looking, Value, value_of

FOLLOWED = {*MOVES, *CLIPS, *ADDITIONS}
FIX = "Quantize a module whose forward makes the same calls for every input, in training too"


class Numbers(Protocol):
    """What stands for quantized weights and values: fake quantization, ONNX's operators, or the values themselves."""

    def weight(self, name: str, weight: Tensor) -> Tensor:
        """A weight."""

    def activation(self, number: int, value: Tensor) -> Tensor:
        """A value that a quantizer has."""

    def call(self, number: int, call: Call, function: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The result of a call whose arguments are quantized."""


class Tag(NamedTuple):
    """What is noted at a tensor: which of its versions has the values of which quantizer, and what they come from."""

    value: Value
    number: int
    direct: bool


class Running(Looking):
    """The mode in which a forward is quantized.

    Args:
        plan: of the module.
        module: it.
        numbers: what quantized values are.
    """

    def __init__(self, plan: Plan, module: nn.Module, numbers: Numbers) -> None:
        super().__init__()
        self.calls, self.numbers, self.position = plan.calls, numbers, 0
        self.known: dict[tuple[int, Value], tuple[Tensor, Tensor]] = {}
        self.weights = {id(module.get_parameter(name)): name for name in plan.axes}

    def see(self, func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The result of a call, quantized as its plan says."""
        name = name_of(func)
        if name in PARAMETERS:
            args, named = positional(name, args, named)
            names = tuple(dict.fromkeys(self.weights[id(t)] for t in tensors(args) if id(t) in self.weights))
            return self._planned(func, args, named, names) if names else func(*args, **named)
        tag = _tag(args[0]) if args and name in FOLLOWED else None
        if tag is None:
            return func(*args, **named)
        is_pending = tag.number == PENDING
        if name in MOVES and not is_pending:
            return self._moved(func, args, named, tag)
        others = [_tag(argument) for argument in args[1:]]
        is_sum = name in ADDITIONS and len(others) == 1 and not is_pending
        if (name in CLIPS and is_pending) or (is_sum and others[0] is not None and others[0].number != PENDING):
            return self._planned(func, args, named)
        return func(*args, **named)

    def finish(self) -> None:
        """Raise StageError where calls of the plan are missing."""
        if self.position != len(self.calls):
            raise self._other("ended")

    def _moved(self, func: Any, args: tuple[Any, ...], named: dict[str, Any], tag: Tag) -> Any:
        """The result of a call that gives values of its input."""
        result = func(*args, **named)
        for tensor in tensors(result):
            if tensor is not args[0] or _tag(tensor) is None:  # changed in place, as by a dropout
                _note(tensor, tag.number, direct=tag.direct and name_of(func) in CARRIED)
        return result

    def _planned(self, func: Any, args: tuple[Any, ...], named: dict[str, Any], weights: tuple[str, ...] = ()) -> Any:
        name, number = name_of(func), self.position
        call = self.calls[number] if number < len(self.calls) else None
        if call is None or (call.name, call.weights) != (name, weights):
            raise self._other(f"called {_text(name, weights)}")
        self.position += 1
        changed = args[0] if name.endswith("_") or named.get("inplace") else None
        if changed is not None and call.inputs and not _is_quantized(changed):
            args = (changed.clone(), *args[1:])  # else its integers would be changed in its place
        quantized = list(args)
        for place, key in call.inputs.items():
            quantized[place] = self._value(key, args[place])
        quantized = tree_map(self._weight, quantized)
        result = self.numbers.call(number, call, func, tuple(quantized), named)
        if call.output is None:
            return result
        if changed is not None:  # it may be read on by its own name
            if result is not changed:
                changed.copy_(result)
            _note(changed, call.output, direct=False)
        if call.output != PENDING:
            result = self.numbers.activation(call.output, result)
        _note(result, call.output, direct=True)
        return result

    def _weight(self, argument: Any) -> Any:
        name = self.weights.get(id(argument)) if isinstance(argument, Tensor) else None
        return argument if name is None else self.numbers.weight(name, argument)

    def _value(self, number: int, tensor: Tensor) -> Tensor:
        """A value as its quantizer leaves it, once for all who read it."""
        tag = _tag(tensor)
        if tag is not None and tag.number == number and tag.direct:
            return tensor
        key = (number, value_of(tensor))
        if key not in self.known:  # with the tensor, so that no id is used twice
            self.known[key] = (tensor, self.numbers.activation(number, tensor))
        return self.known[key][1]

    def _other(self, what: str) -> StageError:
        """The error of a forward that goes another way."""
        expected = "the end"
        if self.position < len(self.calls):
            call = self.calls[self.position]
            expected = _text(call.name, call.weights)
        problem = f"the forward {what} after {self.position} quantized calls"
        return StageError(problem, expected=f"{expected}, as when it was planned", fix=FIX)


class Plain:
    """Numbers as they are, each of them seen by `look(number, value)`."""

    def __init__(self, look: Any) -> None:
        self.look = look

    def weight(self, name: str, weight: Tensor) -> Tensor:
        """The weight."""
        return weight

    def activation(self, number: int, value: Tensor) -> Tensor:
        """The value."""
        self.look(number, value)
        return value

    def call(self, number: int, call: Call, function: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """The result."""
        return function(*args, **named)


def _tag(tensor: Any) -> Tag | None:
    tag = getattr(tensor, "_quantizer", None) if isinstance(tensor, Tensor) else None
    return tag if tag is not None and tag.value == value_of(tensor) else None


def _is_quantized(tensor: Any) -> bool:
    """Whether a value is what its quantizer leaves."""
    tag = _tag(tensor)
    return tag is not None and tag.direct


def _note(tensor: Tensor, number: int, *, direct: bool) -> None:
    tensor._quantizer = Tag(value_of(tensor), number, direct)  # type: ignore[attr-defined]


def _text(name: str, weights: tuple[str, ...]) -> str:
    return f"{name} with {', '.join(weights)}" if weights else name
