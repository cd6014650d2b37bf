"""How an ONNX file from outside is called for examples: its batch, what it carries, what is always the same."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Self

import numpy as np

from pipeline.errors import ConfigError
from pipeline.forms.sandbox.frames import Array, Arrays

Run = Callable[[Arrays], Arrays]


class Value(NamedTuple):
    """An input that is the same in each call: its dtype, its shape, and the number that fills it."""

    dtype: str
    shape: tuple[int, ...]
    number: float = 0

    def array(self) -> Array:
        """The value as the file takes it."""
        return np.full(self.shape, self.number, self.dtype)


class State(NamedTuple):
    """An input that begins as zeros (`start`, 0 for the size of a free batch) and is then what `output` gave."""

    output: str
    start: Value


@dataclass(frozen=True)
class Calls:
    """The calls of a file for a batch of examples; without arguments it is one, with the whole batch.

    Args:
        batch: examples of each call, where the file fixes their number; the last call is filled up with its last one.
        axes: the axis of the batch, by the file's name of an input or output; 0 unless it stands here.
        constants: inputs that no example has.
        states: inputs that the call before gives. Each example begins with zeros.
        steps: inputs whose examples are sequences (N, T, ...), of which each call takes one step.
    """

    batch: int | None = None
    axes: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, Value] = field(default_factory=dict)
    states: Mapping[str, State] = field(default_factory=dict)
    steps: tuple[str, ...] = ()

    def each(self, run: Run, arrays: Arrays) -> Iterator[Arrays]:
        """What the file takes, call by call.

        Args:
            run: calls the file; asked only where the next call depends on it.
            arrays: by the file's names, name -> (N, ...).
        """
        for piece in self._pieces(arrays):
            for feed, _ in self._in_turn(run if self.states else lambda feed: {}, piece):
                yield feed

    def count(self, arrays: Arrays) -> int:
        """How many calls a batch of examples takes."""
        size = len(next(iter(arrays.values())))
        return -(-size // (self.batch or size)) * self._steps_of(arrays)

    def together(self, run: Run, arrays: Arrays) -> dict[str, Array]:
        """The outputs (N, ...) for a batch of examples, those of steps (N, T, ...); states are none.

        Raises:
            ConfigError: an output differs in shape from example to example.
        """
        outputs = (one for piece in self._pieces(arrays) for _, one in self._in_turn(run, piece))
        return self.joined(outputs, len(next(iter(arrays.values()))), self._steps_of(arrays))

    def joined(self, outputs: Iterable[Arrays], size: int, steps: int = 1) -> dict[str, Array]:
        """The same of what the calls for a batch of `size` examples gave, each of so many steps.

        Raises:
            ConfigError: an output differs in shape from example to example.
        """
        parts, waiting, batch = [], iter(outputs), self.batch or size
        for start in range(0, size, batch):
            answers = [self._answers(one, min(batch, size - start)) for one in islice(waiting, steps)]
            parts.append({name: np.stack([answer[name] for answer in answers], 1) for name in answers[0]})
        return {name: _joined(name, [part[name] for part in parts], bool(self.steps)) for name in parts[0]}

    def _pieces(self, arrays: Arrays) -> Iterator[Arrays]:
        """The examples of each call."""
        size = len(next(iter(arrays.values())))
        batch = self.batch or size
        for start in range(0, size, batch):
            rows = np.minimum(np.arange(start, start + batch), size - 1)
            yield {name: value[rows] for name, value in arrays.items()}

    def _in_turn(self, run: Run, piece: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
        """What goes in and what comes out, step by step."""
        size = len(next(iter(piece.values())))
        states = {name: _sized(state.start, size).array() for name, state in self.states.items()}
        for step in range(self._steps_of(piece)):
            now = {name: value[:, step] if name in self.steps else value for name, value in piece.items()}
            feed = {name: np.moveaxis(value, 0, self.axes.get(name, 0)) for name, value in now.items()}
            feed |= {name: value.array() for name, value in self.constants.items()} | states
            outputs = run(feed)
            yield feed, outputs
            states = {name: outputs[state.output] for name, state in self.states.items() if outputs}

    def _steps_of(self, arrays: Arrays) -> int:
        return max((arrays[name].shape[1] for name in self.steps), default=1)

    def _answers(self, outputs: Arrays, size: int) -> dict[str, Array]:
        """The outputs with the batch in front; a file for one example may leave it out."""
        carried = {state.output for state in self.states.values()}
        answers = {}
        for name, value in outputs.items():
            if name not in carried:
                axis = self.axes.get(name, 0)
                is_one = self.batch == 1 and (value.ndim <= axis or value.shape[axis] != 1)
                answers[name] = value[None] if is_one else np.moveaxis(value, axis, 0)[:size]
        return answers

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """What `to_json` gave, or nothing."""
        constants = {name: _value(*value) for name, value in saved.get("constants", {}).items()}
        states = {name: State(output, _value(*start)) for name, (output, start) in saved.get("states", {}).items()}
        return cls(saved.get("batch"), saved.get("axes", {}), constants, states, tuple(saved.get("steps", ())))


def _value(dtype: str, shape: list[int], number: float = 0) -> Value:
    return Value(dtype, tuple(shape), number)


def _sized(value: Value, size: int) -> Value:
    return value._replace(shape=tuple(axis or size for axis in value.shape))


def _joined(name: str, parts: list[Array], are_steps: bool) -> Array:
    """The outputs (N, T, ...) of all calls, or (N, ...) where there are no steps."""
    shapes = sorted({part.shape[1 if are_steps else 2 :] for part in parts})
    if len(shapes) > 1:
        problem = f"its output `{name}` is {shapes[0]} for one example and {shapes[-1]} for another"
        fix = "Score another output, or give examples of one size"
        raise ConfigError(problem, expected="one shape for all", fix=fix)
    whole = np.concatenate(parts)
    return whole if are_steps else whole[:, 0]
