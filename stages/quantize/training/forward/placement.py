"""Where a forward is quantized: its plan, made once from the calls of one forward."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from pydantic import JsonValue
from torch import nn

from pipeline.base.batches import Inputs
from stages.quantize.training.forward.calls import (
    ADDITIONS,
    AXIS,
    CLIPS,
    CONVOLUTIONS,
    INPUT,
    MOVES,
    PARAMETERS,
    TABLES,
)
from stages.quantize.training.forward.records import Record, Recording, Value, record

GEMMS = ("linear", "matmul", "mm")
"""With a ReLU behind it that stays in floats, ONNX Runtime makes one kernel of both, in floats."""
PENDING = -1
"""In the place of a quantizer: the value is quantized behind the clip that reads it."""


@dataclass(frozen=True)
class Call:
    """A call that is quantized.

    Args:
        name: of the function.
        weights: names of those of its weights that are quantized.
        inputs: place of an argument -> number of its quantizer.
        output: number of the quantizer of its result; PENDING, or None for floats.
        bias: name of the bias that is rounded as the kernel adds it, if any.
        rank: axes of the input.
    """

    name: str
    weights: tuple[str, ...] = ()
    inputs: Mapping[int, int] = field(default_factory=dict)
    output: int | None = None
    bias: str | None = None
    rank: int = 0


@dataclass(frozen=True)
class Plan:
    """What is quantized where.

    Args:
        calls: in the order of the forward.
        bounds: for each quantizer of activations what a clip before it lets through at most; None for anything.
        axes: for each weight the axis of its channels.
    """

    calls: tuple[Call, ...]
    bounds: tuple[float | None, ...]
    axes: Mapping[str, int]

    def to_json(self) -> dict[str, JsonValue]:
        """As an edit holds it."""
        values: dict[str, JsonValue] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_json(cls, plan: Mapping[str, Any]) -> Self:
        """The plan of an edit."""
        calls = [
            Call(**{**one, "weights": tuple(one["weights"]), "inputs": {int(k): v for k, v in one["inputs"].items()}})
            for one in plan["calls"]
        ]
        return cls(tuple(calls), tuple(plan["bounds"]), plan["axes"])


def plan_of(module: nn.Module, inputs: Inputs) -> Plan:
    """Where to quantize, so that ONNX Runtime computes convolutions and products with weights in integers.

    Inputs of these are quantized; a convolution's result too, behind a clip at zero that alone reads it; and sums of
    two values that are quantized, with both of these. A value has one quantizer, however many read it.

    Args:
        module: with its batch norms folded, in evaluation mode; it is not changed.
        inputs: a batch that it takes.
    """
    return _Planner(module, record(module, inputs)).plan()


class _Planner:
    def __init__(self, module: nn.Module, recording: Recording) -> None:
        self.recording = recording
        self.sizes = {name: weight.dim() for name, weight in module.named_parameters()}
        self.tags: dict[Value, int] = {}
        self.roots: dict[Value, Value] = {}
        self.of_roots: dict[Value, int] = {}
        self.bounds: list[float | None] = []
        self.axes: dict[str, int] = {}

    def plan(self) -> Plan:
        calls = [call for one in self.recording.records if (call := self._call(one))]
        return Plan(tuple(calls), tuple(self.bounds), self.axes)

    def _call(self, one: Record) -> Call | None:
        """What is quantized of a call, if anything; notes what its result is."""
        weights = self._weights(one)
        if weights:
            return self._weighted(one, weights)
        first = next(iter(one.arguments), None)
        if not isinstance(first, tuple):
            return None
        if one.name in MOVES:
            for value in one.gives:
                self.roots[value] = self._root(first)
                if first in self.tags and self.tags[first] != PENDING:
                    self.tags[value] = self.tags[first]
        elif one.name in CLIPS and self.tags.get(first) == PENDING:
            return Call(one.name, output=self._quantize(one.gives[0], one.bound))
        elif one.name in ADDITIONS and len(one.arguments) == 2:
            numbers = [self.tags.get(value, PENDING) for value in one.arguments if isinstance(value, tuple)]
            if PENDING not in numbers and len(numbers) == 2:
                return Call(one.name, inputs=dict(enumerate(numbers)), output=self._result(one))
        return None

    def _weighted(self, one: Record, weights: tuple[str, ...]) -> Call:
        place, inputs, output, bias = INPUT.get(one.name), {}, None, None
        value = one.arguments[place] if place is not None else None
        if place is not None and isinstance(value, tuple):
            inputs = {place: self._reading(value)}
            if one.name in CONVOLUTIONS or (one.name in GEMMS and one.rank == 2 and self._clip(one)):
                output = self._result(one)
            given_bias = one.arguments[2] if len(one.arguments) > 2 else None
            if output is not None and isinstance(given_bias, str):
                bias = given_bias
        return Call(one.name, weights, inputs, output, bias, one.rank)

    def _weights(self, one: Record) -> tuple[str, ...]:
        if one.name not in PARAMETERS:
            return ()
        names = [name for name in one.weights() if self.sizes.get(name, 0) > 1]
        if one.name == "addmm" and one.arguments[2] not in names:
            return ()
        if one.name in ("matmul", "mm") and (one.arguments[1] not in names or self.sizes[names[0]] != 2):
            return ()
        for name in names:
            # What is tied has the channels of who read it first.
            self.axes.setdefault(name, 0 if one.name in TABLES and self._tied(name) else AXIS.get(one.name, 0))
        return tuple(dict.fromkeys(names))

    def _tied(self, weight: str) -> bool:
        """Whether a table is read by more than look-ups."""
        return any(weight in one.weights() for one in self.recording.records if one.name not in TABLES)

    def _reading(self, value: Value) -> int:
        """The quantizer of a value that is read as integers."""
        if self.tags.get(value, PENDING) != PENDING:
            return self.tags[value]
        root = self._root(value)
        if root not in self.of_roots:
            self.of_roots[root] = self._new(None)
        return self.of_roots[root]

    def _result(self, one: Record) -> int:
        """The quantizer of a call's result: its own, or that behind the clip which alone reads it."""
        if self._clip(one):
            self.tags[one.gives[0]] = PENDING
            return PENDING
        return self._quantize(one.gives[0], None)

    def _clip(self, one: Record) -> bool:
        reader = self.recording.only_reader(one.gives[0])
        return reader is not None and reader.name in CLIPS and reader.bound is not None

    def _quantize(self, value: Value, bound: float | None) -> int:
        self.tags[value] = self._new(None if bound == float("inf") else bound)
        return self.tags[value]

    def _new(self, bound: float | None) -> int:
        self.bounds.append(bound)
        return len(self.bounds) - 1

    def _root(self, value: Value) -> Value:
        return self.roots.get(value, value)
