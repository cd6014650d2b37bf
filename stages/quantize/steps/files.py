"""What every step is given and what it gives back: the files it reads and writes, and what it says of its work."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import onnx

from stages.quantize.rounding.rounder import Entry

Left = dict[str, list[str]]
"""Names of the nodes that a step leaves in fp32, by the reason."""


@dataclass(frozen=True)
class Files:
    """A graph from file to file.

    Args:
        source: the graph's file; a step may change it.
        target: the file to write.
        external: whether weights go to files beside it.
    """

    source: Path
    target: Path
    external: bool

    def save(self, proto: onnx.ModelProto, path: Path) -> None:
        """Write a graph with its weights where they go."""
        path.with_name(f"{path.name}.data").unlink(missing_ok=True)  # a file that is there would be added to
        onnx.save(proto, path, save_as_external_data=self.external, location=f"{path.name}.data")


class Done(NamedTuple):
    """What a step says of its work.

    Args:
        left: the nodes that it leaves in fp32 by itself, or did otherwise than asked.
        layers: what became of each layer's weight.
    """

    left: Left = {}
    layers: list[Entry] = []
