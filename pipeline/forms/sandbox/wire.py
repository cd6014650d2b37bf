"""Protobuf's wire format, read field by field: nothing is built, and nothing outside a message's bounds is touched.

Reference: Protocol Buffers documentation, "Encoding".
"""

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIDTHS = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10
_CONTINUED = bytes(range(128, 256))


class DamagedError(ValueError):
    """The bytes are no message, or end in the middle of one."""


class Field(NamedTuple):
    """One field: its number and wire type, the value of a varint, and where its content lies."""

    number: int
    wire: int
    value: int
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of its content."""
        return self.end - self.start


def fields(data: bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message that lies at [start, end). Raises DamagedError."""
    position = start
    while position < end:
        key, begin = varint(data, position, end)
        number, wire, value = key >> 3, key & 7, 0
        if wire == VARINT:
            value, position = varint(data, begin, end)
        elif wire in _WIDTHS:
            position = begin + _WIDTHS[wire]
        elif wire == BYTES:
            size, begin = varint(data, begin, end)
            position = begin + size
        else:
            raise DamagedError(f"byte {begin} begins no field")
        if position > end or not number:
            raise DamagedError(f"a field at byte {begin} reaches to byte {position:,}, and there are {end:,}")
        yield Field(number, wire, value, begin, position)


def varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A number of variable length and the position after it. Raises DamagedError."""
    value = 0
    for i in range(_LONGEST_VARINT):
        if position + i >= end:
            raise DamagedError(f"it ends at byte {end:,}, in the middle of a number")
        byte = data[position + i]
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, position + i + 1
    raise DamagedError(f"byte {position} begins a number that does not end")


def varints(data: bytes, field: Field) -> list[int]:
    """The numbers of a repeated field, packed or a single one. Raises DamagedError."""
    if field.wire == VARINT:
        return [field.value]
    numbers, position = [], field.start
    while position < field.end:
        value, position = varint(data, position, field.end)
        numbers.append(value)
    return numbers


def count_varints(data: bytes, field: Field) -> int:
    """How many numbers a repeated field holds, without reading them."""
    return 1 if field.wire == VARINT else len(data[field.start : field.end].translate(None, _CONTINUED))


def text(data: bytes, field: Field) -> str:
    """A field's content as text. Raises DamagedError where it is none."""
    try:
        return data[field.start : field.end].decode()
    except UnicodeDecodeError:
        raise DamagedError(f"byte {field.start} begins a text that is none") from None
