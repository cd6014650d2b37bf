"""An ONNX file from outside, judged by its bytes alone: no library has opened it when this has passed it."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pipeline.base.use import nearest
from pipeline.errors import ConfigError
from pipeline.forms.sandbox.tensors import Tensors
from pipeline.forms.sandbox.wire import BYTES, DamagedError, Field, fields, text, varints

LARGEST = 2**31 - 1  # bytes of a protobuf message
DEEPEST = 100  # messages inside each other, as protobuf's own readers allow
MOST_FIELDS = 4_000_000
MOST_NODES = 10_000_000  # with the functions of the file put in
SHOWN = 5

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Whose operators ONNX Runtime has; any other must be a function that the file defines itself."""
LOADS_CODE = {("com.microsoft", "EPContext")}
"""Operators of these that open further files or hand code to a device."""

INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 14: "type", 15: "type", 22: "sparse", 23: "sparse",
    },
    "function": {7: "node", 11: "attribute", 12: "value"},
    "training": {1: "graph", 2: "graph"},
    "sparse": {1: "tensor", 2: "tensor"},
    "value": {2: "type"},
    "type": {1: "shaped", 4: "holder", 5: "map", 8: "shaped", 9: "holder"},
    "holder": {1: "type"},
    "map": {2: "type"},
    "shaped": {2: "shape"},
    "shape": {1: "axis"},
}  # fmt: skip
"""Which fields of ONNX's messages hold further messages, and of which kind; see onnx.proto."""
ONCE: dict[str, tuple[int, ...]] = {
    "model": (7,), "attribute": (5, 6, 14, 22), "training": (1, 2), "sparse": (1, 2), "value": (2,),
    "type": (1, 4, 5, 8, 9), "holder": (1,), "map": (2,), "shaped": (2,),
}  # fmt: skip
"""Those of them that stand once: of two, protobuf's readers would make one that nobody has looked at."""

REMARKS: dict[str, tuple[int, ...]] = {
    "model": (6, 14), "graph": (10, 16), "node": (6, 9), "attribute": (13,), "function": (8, 14), "value": (3, 4),
    "tensor": (12, 16),
}  # fmt: skip
"""Documentation and metadata, such as an exporter's stack traces, which no runtime reads."""

DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip

Function = tuple[str, str, str]
"""Domain, name and overload of an operator."""


class FilePort(NamedTuple):
    """An input or output of a file: a dtype, "" for what is no tensor; the sizes, a name or None where one is free.

    The shape is None where the file does not say the rank.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        shape = "of any shape" if self.shape is None else f"({', '.join(str(size or '?') for size in self.shape)})"
        return f"`{self.name}` {self.dtype or 'no tensor'} {shape}"


@dataclass(frozen=True)
class Graph:
    """What an ONNX file takes and gives; the bytes that it and its external data have, and how many are remarks."""

    inputs: tuple[FilePort, ...]
    outputs: tuple[FilePort, ...]
    size_bytes: int
    remarks_bytes: int = 0


class Message(NamedTuple):
    """A message that is still to be read: its kind, its place, how deep it lies and in which function, by its start."""

    kind: str
    start: int
    end: int
    depth: int
    owner: int


@dataclass
class Reading:
    """What a walk over a file gathers."""

    data: bytes
    tensors: Tensors
    calls: dict[int, Counter[Function]] = field(default_factory=lambda: defaultdict(Counter))
    functions: dict[int, Function] = field(default_factory=dict)
    main: Message | None = None
    opsets: int = 0
    count: int = 0
    remarks: int = 0

    def walk(self) -> None:
        """Read all messages; none is left out and none is read twice. Raises DamagedError."""
        waiting = [Message("model", 0, len(self.data), 1, -1)]
        while waiting:
            message = waiting.pop()
            if message.depth > DEEPEST:
                raise DamagedError(f"its graphs and types lie more than {DEEPEST} messages deep")
            parts = list(islice(fields(self.data, message.start, message.end), MOST_FIELDS + 1 - self.count))
            self.count += len(parts)
            if self.count > MOST_FIELDS:
                raise DamagedError(f"it has more than {MOST_FIELDS:,} fields")
            self._take(message, parts)
            waiting += self._inside(message, parts)

    def _inside(self, message: Message, parts: list[Field]) -> Iterator[Message]:
        kinds = INSIDE.get(message.kind, {})
        times = Counter(part.number for part in parts)
        if any(times[number] > 1 for number in ONCE.get(message.kind, ())):
            raise DamagedError(f"the {message.kind} at byte {message.start} has a part twice")
        for part in parts:
            if part.number not in kinds:
                continue
            if part.wire != BYTES:
                raise DamagedError(f"byte {part.start} begins a number where a {kinds[part.number]} is expected")
            kind = kinds[part.number]
            owner = part.start if kind == "function" else message.owner
            inner = Message(kind, part.start, part.end, message.depth + 1, owner)
            if message.kind == "model" and kind == "graph":
                self.main = inner
            yield inner

    def _take(self, message: Message, parts: list[Field]) -> None:
        self.remarks += sum(part.size for part in parts if part.number in REMARKS.get(message.kind, ()))
        if message.kind == "tensor":
            self.tensors.take(parts)
        elif message.kind == "node":
            self.calls[message.owner][self._operator(parts, 7, 4, 8)] += 1
        elif message.kind == "function":
            self.functions[message.owner] = self._operator(parts, 10, 1, 13)
        elif message.kind == "model":
            self.opsets = sum(part.number == 8 for part in parts)

    def _operator(self, parts: list[Field], *numbers: int) -> Function:
        """The texts with these numbers: the domain, the name, the overload."""
        texts = {part.number: text(self.data, part) for part in parts if part.number in numbers}
        domain, name, overload = (texts.get(number, "") for number in numbers)
        return domain, name, overload


def check(path: Path, most_bytes: int | None = None) -> Graph:
    """What a file takes and gives, once it has passed.

    Args:
        path: an ONNX file.
        most_bytes: of the graph and its external data together.

    Raises:
        ConfigError: it is damaged, cut short or no ONNX file; it nests too deep; a tensor's shape does not fit its
            data; external data lie outside its folder, or are not there; it uses operators that ONNX Runtime has not.
    """
    where = f"model {path}"
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.onnx")) if path.parent.is_dir() else []
        raise ConfigError(f"there is no such file{nearest(path.name, beside)}", where=where)
    if not 0 < path.stat().st_size <= LARGEST:
        expected = f"1 to {LARGEST:,}; larger weights lie in a file beside it"
        raise ConfigError(f"it has {path.stat().st_size:,} bytes", where=where, expected=expected)
    data = path.read_bytes()
    reading = Reading(data, Tensors(data, path.parent))
    try:
        reading.walk()
        graph = _graph(reading)
        _check_operators(reading)
    except DamagedError as error:
        fix = "Export or download it again, or do not trust it"
        raise ConfigError(f"it is damaged or no ONNX file: {error}", where=where, fix=fix) from None
    except ConfigError as error:
        error.where = where
        raise
    if most_bytes is not None and graph.size_bytes > most_bytes:
        fix = "Raise `memory` under `onnx:`, which is the limit of the process that runs it"
        expected = f"at most {most_bytes:,}"
        raise ConfigError(f"it has {graph.size_bytes:,} bytes", where=where, expected=expected, fix=fix)
    return graph


def external(path: Path) -> list[str]:
    """Where the external data of a file lie, relative to its folder. Raises DamagedError; nothing else is checked."""
    data = path.read_bytes()
    reading = Reading(data, Tensors(data, None))
    reading.walk()
    return list(reading.tensors.locations)


def _graph(reading: Reading) -> Graph:
    if reading.main is None or not reading.opsets:
        raise DamagedError(f"it has no {'operator sets' if reading.main else 'graph'}")
    data, message = reading.data, reading.main
    parts: dict[int, list[FilePort]] = {11: [], 12: []}
    weights = set()
    for part in fields(data, message.start, message.end):
        if part.number in parts:
            parts[part.number].append(_port(data, part))
        elif part.number == 5:
            weights |= {text(data, inner) for inner in fields(data, part.start, part.end) if inner.number == 8}
    inputs = tuple(port for port in parts[11] if port.name not in weights)
    size = len(data) + sum(reading.tensors.files.values())
    return Graph(inputs, tuple(parts[12]), size, reading.remarks)


def _port(data: bytes, value: Field) -> FilePort:
    """A ValueInfoProto: its name, and of a tensor's type the numbers' and the shape."""
    parts = _by_number(data, value)
    tensor = _by_number(data, parts[2]).get(1) if 2 in parts else None
    inner = _by_number(data, tensor) if tensor else {}
    dtype = DTYPES.get(inner[1].value, f"type {inner[1].value}") if 1 in inner else ""
    axes = [axis for axis in fields(data, inner[2].start, inner[2].end) if axis.number == 1] if 2 in inner else None
    shape = None if axes is None else tuple(_size(data, axis) for axis in axes)
    return FilePort(text(data, parts[1]) if 1 in parts else "", dtype, shape)


def _by_number(data: bytes, message: Field) -> dict[int, Field]:
    """The fields of a message by number; the last one counts, as for protobuf."""
    return {part.number: part for part in fields(data, message.start, message.end)}


def _size(data: bytes, axis: Field) -> int | str | None:
    size: int | str | None = None
    for part in fields(data, axis.start, axis.end):
        if part.number == 1:
            size = varints(data, part)[0]
            if size >= 2**63:
                raise DamagedError("an axis has a negative size")
        elif part.number == 2:
            size = text(data, part) or None
    return size


def _check_operators(reading: Reading) -> None:
    """Refuse operators that neither ONNX Runtime nor the file has, and functions that never come to an end."""
    own = {function: owner for owner, function in reading.functions.items()}
    called = {operator for calls in reading.calls.values() for operator in calls}
    strange = {f for f in called if f not in own and (f[0] not in DOMAINS or f[:2] in LOADS_CODE)}
    if strange:
        names = sorted(f"{domain}::{name}" for domain, name, _ in strange)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        expected = f"operators of {', '.join(d or 'onnx' for d in DOMAINS if d != 'ai.onnx')}, or of its functions"
        fix = "Export it without them; a custom operator is code, which is not run"
        raise ConfigError(f"it has custom operators: {', '.join(names[:SHOWN])}{more}", expected=expected, fix=fix)
    sizes: dict[int, int] = {}
    below = {owner: {own[f] for f in reading.calls[owner] if f in own} for owner in (-1, *reading.functions)}
    try:
        order = list(TopologicalSorter(below).static_order())
    except CycleError:
        raise DamagedError("a function calls itself") from None
    for owner in order:
        counted = reading.calls[owner].items()
        sizes[owner] = sum(times * (1 + (sizes[own[f]] if f in own else 0)) for f, times in counted)
    if sizes[-1] > MOST_NODES:
        raise DamagedError(f"its functions unfold to {sizes[-1]:,} operators; {MOST_NODES:,} are allowed")
