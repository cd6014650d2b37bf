"""What every tool gets beside the network: the command line, and the examples; imports no more than numpy.

    python by_TOOL.py FILE.onnx SAMPLES.npz OUT.onnx --method static

SAMPLES.npz has each array of an example as PART/POSITION/NAME, with a first axis of one example, and the labels of a
part as PART/labels: `calibration`, whose labels no tool here reads, and `validation`, for those that control accuracy.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Example = dict[str, Any]


def asked(methods: Sequence[str]) -> argparse.Namespace:
    """The files, the method, and the drop of accuracy that is allowed where it is controlled."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--method", choices=methods, default=methods[0])
    parser.add_argument("--drop", type=float, default=0.003)
    return parser.parse_args()


def examples(path: Path, part: str) -> list[Example]:
    """The examples of a part in their order: name -> array (1, ...)."""
    rows = defaultdict[int, Example](dict)
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            place, _, rest = key.partition("/")
            position, _, name = rest.partition("/")
            if place == part and name:
                rows[int(position)][name] = arrays[key]
    return [rows[position] for position in sorted(rows)]


def labels(path: Path, part: str) -> Any:
    """The classes (N,) of a part."""
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[f"{part}/labels"]


def is_text(rows: Sequence[Example]) -> bool:
    """Whether the examples are of tokens, so that the network is an encoder of text."""
    return "input_ids" in rows[0]


def write(path: Path, parts: dict[str, tuple[Sequence[Example], Any]]) -> None:
    """Write SAMPLES.npz: part -> (its examples, its labels)."""
    arrays: dict[str, Any] = {}
    for part, (rows, classes) in parts.items():
        arrays |= {f"{part}/{i}/{name}": value for i, row in enumerate(rows) for name, value in row.items()}
        arrays[f"{part}/labels"] = np.asarray(classes)
    np.savez(path, **arrays)
