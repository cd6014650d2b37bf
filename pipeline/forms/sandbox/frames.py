"""What goes through the pipes between a child and us: a length, a header in JSON, the raw bytes of arrays."""

import json
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]

LENGTH = 8  # bytes of the number that a message begins with
LONGEST_HEADER = 2**24
MOST_AXES = 64
LONGEST_AXIS = 2**48
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


class FrameError(ValueError):
    """What came is no message."""


def pack(head: Mapping[str, Any], arrays: Arrays) -> Iterator[bytes]:
    """A message, part by part.

    Args:
        head: JSON.
        arrays: by name, of the types in DTYPES.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    descriptions = [[name, array.dtype.name, list(arrays[name].shape)] for name, array in whole.items()]
    header = json.dumps({"head": dict(head), "arrays": descriptions}).encode()
    yield len(header).to_bytes(LENGTH, "little") + header
    for array in whole.values():
        yield array.tobytes()


def unpack(read: Callable[[int], bytearray], most_bytes: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """The next message.

    Args:
        read: read(n) gives the next n bytes.
        most_bytes: of the arrays together.

    Raises:
        FrameError: it is none, or it is too large; what it says is not believed.
    """
    size = int.from_bytes(read(LENGTH), "little")
    if size > LONGEST_HEADER:
        raise FrameError(f"a header of {size:,} bytes")
    try:
        content = json.loads(bytes(read(size)))
        head = dict(content["head"])
        descriptions = [(str(name), str(dtype), [int(n) for n in shape]) for name, dtype, shape in content["arrays"]]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise FrameError("a header that is none") from error
    arrays = {}
    for name, dtype, shape in descriptions:
        if dtype not in DTYPES or len(shape) > MOST_AXES or any(not 0 <= n <= LONGEST_AXIS for n in shape):
            raise FrameError(f"an array of {dtype} {shape}")
        needed = prod(shape) * np.dtype(dtype).itemsize
        most_bytes -= needed
        if most_bytes < 0:
            raise FrameError(f"an array of {needed:,} bytes")
        arrays[name] = np.frombuffer(read(needed), dtype=dtype).reshape(shape)
    return head, arrays
