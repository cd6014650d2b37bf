"""The tensors of an ONNX file: whether each has the data that its shape promises, and where external data lie."""

from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.errors import ConfigError
from pipeline.forms.sandbox.wire import BYTES, DamagedError, Field, count_varints, fields, text, varints

BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2, 27: 6, 28: 6,
}  # fmt: skip
"""Of a value, by its type in TensorProto.DataType; a text, type 8, has no size of its own."""
TEXT = 8
PAIRS = (14, 15)  # complex numbers: two values each
DIMS, DTYPE, FLOATS, INT32S, TEXTS, INT64S, NAME, RAW, DOUBLES, UINT64S = 1, 2, *range(4, 12)
EXTERNAL, LOCATION = 13, 14
MOST_DIGITS = 18
MOST_AXES = 64
IS_EXTERNAL = 1  # of a tensor's data_location


class Tensors:
    """Takes the tensors of a file one by one.

    Args:
        data: the file's bytes.
        folder: of the file; without one external data are listed and not looked at.
    """

    def __init__(self, data: bytes, folder: Path | None) -> None:
        self.data, self.folder = data, folder
        self.locations: dict[str, None] = {}
        self.files: dict[Path, int] = {}
        """Bytes of each external file that was looked at."""

    def take(self, parts: list[Field]) -> None:
        """Check a tensor by its fields.

        Raises:
            DamagedError: it has other data than its shape promises.
            ConfigError: its data lie where they may not.
        """
        data = self.data
        last = {part.number: part for part in parts}  # the one that counts, as for protobuf
        name = text(data, last[NAME]) if NAME in last else ""
        kind = last[DTYPE].value if DTYPE in last else 0
        if sum(count_varints(data, part) for part in parts if part.number == DIMS) > MOST_AXES:
            raise DamagedError(f"the tensor `{name}` has more than {MOST_AXES} axes")
        dims = [size for part in parts if part.number == DIMS for size in varints(data, part)]
        if kind not in BITS and kind != TEXT:
            raise DamagedError(f"the tensor `{name}` has the type {kind}")
        if any(size >= 2**63 for size in dims):
            raise DamagedError(f"the tensor `{name}` has a negative size")
        outside = dict(self._entry(part) for part in parts if part.number == EXTERNAL)
        if bool(outside) != (LOCATION in last and last[LOCATION].value == IS_EXTERNAL) or (outside and RAW in last):
            raise DamagedError(f"the tensor `{name}` does not say clearly whether its data lie outside")
        if outside:
            self._look(name, outside, (prod(dims) * BITS.get(kind, 0) + 7) // 8)
        else:
            self._compare(name, kind, prod(dims), parts, last.get(RAW))

    def _compare(self, name: str, kind: int, promised: int, parts: list[Field], raw: Field | None) -> None:
        """Refuse a tensor whose data are of another size than its shape."""
        if raw:
            held, needed, unit = raw.size, (promised * BITS.get(kind, 0) + 7) // 8, "bytes"
        else:
            held, unit = self._held(parts), "values"
            needed = promised * 2 if kind in PAIRS else promised
            if BITS.get(kind) in (2, 4):  # several in one
                needed = (promised * BITS[kind] + 7) // 8
        if held != needed:
            raise DamagedError(f"the tensor `{name}` has {held:,} {unit}, and its shape promises {needed:,}")

    def _held(self, parts: list[Field]) -> int:
        """Values outside of raw data."""
        widths = {FLOATS: 4, DOUBLES: 8}
        count = sum(part.size // widths[part.number] for part in parts if part.number in widths)
        count += sum(count_varints(self.data, part) for part in parts if part.number in (INT32S, INT64S, UINT64S))
        return count + sum(part.number == TEXTS for part in parts)

    def _entry(self, part: Field) -> tuple[str, str]:
        if part.wire != BYTES:
            raise DamagedError(f"byte {part.start} begins no entry of external data")
        texts = {inner.number: text(self.data, inner) for inner in fields(self.data, part.start, part.end)}
        return texts.get(1, ""), texts.get(2, "")

    def _look(self, name: str, outside: dict[str, str], promised: int) -> None:
        """Refuse external data out of the file's folder, and those that are too short."""
        location = outside.get("location", "")
        self.locations[location] = None
        if self.folder is None:
            return
        offset, length = (_number(name, outside.get(key, "")) for key in ("offset", "length"))
        size = self._size(name, location)
        begin, needed = offset or 0, promised if length is None else length
        if needed != promised:
            raise DamagedError(f"the tensor `{name}` has {needed:,} bytes, and its shape promises {promised:,}")
        if begin + needed > size:
            raise ConfigError(
                f"the external data of `{name}` reach to byte {begin + needed:,} of {location}, which has {size:,}",
                fix="The file is cut short: download it again",
            )

    def _size(self, name: str, location: str) -> int:
        """Bytes of an external file, which is inside the folder."""
        folder = (self.folder or Path()).resolve()
        paths = PurePosixPath(location), PureWindowsPath(location)
        absolute = any(path.root or getattr(path, "drive", "") for path in paths)
        what = f"the external data of `{name}` lie in `{location}`"
        if not location or "\0" in location or absolute or any(".." in path.parts for path in paths):
            raise ConfigError(what, expected="a file beside the graph, by a relative path without `..`")
        place = folder / location
        if not place.resolve().is_relative_to(folder):
            raise ConfigError(f"{what}, a link out of its folder", fix="Put a copy of the file in the link's place")
        if not place.is_file():
            raise ConfigError(f"{what}, and there is no such file", fix="It belongs beside the graph: copy both")
        self.files[place] = place.stat().st_size
        return self.files[place]


def _number(name: str, digits: str) -> int | None:
    if not digits:
        return None
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS):
        raise DamagedError(f"the external data of `{name}` begin or end at `{digits[:30]}`")
    return int(digits)
