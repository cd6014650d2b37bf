"""What a forward did: its calls in order, which values went into them and came out."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.base.batches import Inputs
from pipeline.model import call
from stages.quantize.training.forward.attention import NAME, attention, is_plain
from stages.quantize.training.forward.calls import clipped_at, name_of, positional, tensors

Value = tuple[int, int]
"""A tensor and its version: what is changed in place is another value."""


@dataclass(frozen=True)
class Record:
    """A call.

    Args:
        name: of the function.
        arguments: by position: a value, the name of a parameter or buffer, or None for what is no tensor.
        reads: all values that went in.
        gives: all values that came out.
        rank: axes of the first tensor that went in by position.
        bound: what values are clipped at, from zero on; None where it clips none.
    """

    name: str
    arguments: tuple[Value | str | None, ...]
    reads: tuple[Value, ...]
    gives: tuple[Value, ...]
    rank: int
    bound: float | None

    def weights(self) -> list[str]:
        """Names of all parameters among the arguments."""
        return [argument for argument in self.arguments if isinstance(argument, str)]


class Looking(TorchFunctionMode):
    """A mode that sees the calls inside torch's multi-head attention too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of a call."""
        named = kwargs or {}
        if name_of(func) == NAME and is_plain(*args, **named):
            with self:
                return attention(*args, **named)
        return self.see(func, args, named)

    def see(self, func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The result of a call of anything else."""
        return func(*args, **named)


class Recorder(Looking):
    """Writes down the calls that give tensors."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = {id(t): name for name, t in (*module.named_buffers(), *module.named_parameters())}
        self.records: list[Record] = []
        self.kept: list[Any] = []  # so that no id is used twice

    def see(self, func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The result of a call."""
        name = name_of(func)
        args, named = positional(name, args, named)
        arguments = tuple(self._argument(argument) for argument in args)
        # Weights of recurrent layers come in a list.
        arguments += tuple(self._argument(t) for a in args if isinstance(a, list | tuple) for t in tensors(a))
        read_tensors = tensors(args, named)
        reads = tuple(value_of(t) for t in read_tensors if id(t) not in self.names)
        rank = next((a.dim() for a in args if isinstance(a, Tensor)), 0)
        bound = clipped_at(name, args, named)
        result = func(*args, **named)
        if outputs := tensors(result):
            self.kept.append((args, named, result))
            gives = tuple(value_of(t) for t in outputs)
            self.records.append(Record(name, arguments, reads, gives, rank, bound))
        return result

    def _argument(self, argument: Any) -> Value | str | None:
        if not isinstance(argument, Tensor):
            return None
        return self.names.get(id(argument)) or value_of(argument)


@dataclass(frozen=True)
class Recording:
    """The calls of a forward, and how often each value was read, by the caller too."""

    records: list[Record]
    readers: Counter[Value]

    def only_reader(self, value: Value) -> Record | None:
        """The one call that reads a value; None where several do, or the caller."""
        if self.readers[value] != 1:
            return None
        return next((record for record in self.records if value in record.reads), None)


def record(module: nn.Module, inputs: Inputs) -> Recording:
    """The calls of one forward in evaluation mode, without gradients."""
    recorder = Recorder(module)
    with torch.no_grad(), recorder:
        outputs = call(module, inputs)
    readers = Counter(value for one in recorder.records for value in one.reads)
    readers.update(value_of(tensor) for tensor in tensors(outputs))
    return Recording(recorder.records, readers)


def value_of(tensor: Tensor) -> Value:
    """Tells a value from others while its tensor lives."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version
