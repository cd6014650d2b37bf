"""What packing made of a file, from the report of the stage that packed it: its bytes by encoding."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from pipeline.base.formatting import bytes_text
from pipeline.records.record import Record

LOG = logging.getLogger("shrinkline")
PACKING = "packing"
"""The name of the report."""

GRAPH = "graph"
REST = "other"
COLUMNS = ("encoding", "tensors", "elements", "bits per element", "before", "after")


class Change(BaseModel):
    """A figure of the file before and after."""

    before: float
    after: float


class PackedTensor(BaseModel):
    """A tensor, how its values are written, and its bytes in the file: `before` is what they were."""

    name: str
    encoding: str
    elements: int = Field(ge=0)
    before: int = Field(ge=0)
    bytes: int = Field(ge=0)


class Packing(BaseModel):
    """What a stage that packs reports: the file's bytes, the graph's and each tensor's."""

    bytes: Change
    graph_bytes: int = Field(ge=0)
    tensors: list[PackedTensor]
    load_ms: Change | None = None
    peak_bytes: Change | None = None
    peak_bytes_reason: str = ""

    @property
    def rest(self) -> int:
        """Bytes of the file that are neither a tensor's nor the graph's."""
        return max(0, round(self.bytes.after) - self.graph_bytes - sum(tensor.bytes for tensor in self.tensors))


@dataclass(frozen=True)
class Encoded:
    """What is written in one way; without a number of elements where it is no tensor."""

    name: str
    tensors: int
    elements: int
    before: int | None
    after: int

    @property
    def bits(self) -> float | None:
        """Bits of the file for each element."""
        return 8 * self.after / self.elements if self.elements else None


def packing(record: Record) -> Packing | None:
    """The report of the last stage that packed; None where there is none, or none that can be read."""
    for stage in reversed(record.stages):
        if PACKING in stage.reports:
            try:
                return Packing.model_validate(stage.reports[PACKING])
            except ValidationError as error:
                reason = error.errors()[0]
                where = ".".join(map(str, reason["loc"]))
                LOG.warning("%s: its report of packing is not shown: %s: %s", stage.name, where, reason["msg"])
                return None
    return None


def by_encoding(packed: Packing) -> list[Encoded]:
    """The bytes of each encoding, most first; then the graph and what is neither, whose sum is the file."""
    names = dict.fromkeys(tensor.encoding for tensor in packed.tensors)
    encodings = [_encoded(name, [t for t in packed.tensors if t.encoding == name]) for name in names]
    beside = [Encoded(name, 0, 0, None, size) for name, size in ((GRAPH, packed.graph_bytes), (REST, packed.rest))]
    return [*sorted(encodings, key=lambda e: -e.after), *(encoded for encoded in beside if encoded.after)]


def packing_cells(encoded: Encoded) -> list[str]:
    """The cells of `COLUMNS`."""
    counts = [f"{encoded.tensors:,}", f"{encoded.elements:,}"] if encoded.tensors else ["-", "-"]
    bits = "-" if encoded.bits is None else f"{encoded.bits:.2f}"
    before = "-" if encoded.before is None else bytes_text(encoded.before)
    return [encoded.name, *counts, bits, before, bytes_text(encoded.after)]


def packing_text(record: Record) -> str:
    """Packed, 4.0 MB to 1.1 MB: int4 900.0 kB, graph 200.0 kB; empty where nothing was packed."""
    if (packed := packing(record)) is None:
        return ""
    parts = ", ".join(f"{encoded.name} {bytes_text(encoded.after)}" for encoded in by_encoding(packed))
    return f"Packed, {bytes_text(packed.bytes.before)} to {bytes_text(packed.bytes.after)}: {parts}"


def cost_text(packed: Packing) -> str:
    """What loading takes, before and after; empty where it was not measured."""
    texts = []
    if times := packed.load_ms:
        texts.append(f"Loading takes {times.after:.3g} ms, before {times.before:.3g} ms.")
    if peak := packed.peak_bytes:
        texts.append(f"Memory at its peak is {bytes_text(peak.after)}, before {bytes_text(peak.before)}.")
    elif packed.peak_bytes_reason:
        texts.append(f"Memory at its peak is not known: {packed.peak_bytes_reason}.")
    return " ".join(texts)


def _encoded(name: str, tensors: Sequence[PackedTensor]) -> Encoded:
    def total(field: str) -> Any:
        return sum(getattr(tensor, field) for tensor in tensors)

    return Encoded(name, len(tensors), total("elements"), total("before"), total("bytes"))
