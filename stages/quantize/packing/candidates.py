"""The ways in which a quantized file could be packed, and the first of them that does what the file did."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import onnx

from pipeline.errors import StageError, blame
from pipeline.forms.graph import opset, save
from stages.quantize.graphs.versions import raised
from stages.quantize.packing.codes.digits import FOUR_BITS
from stages.quantize.packing.floats import rounded_biases
from stages.quantize.packing.graph import Packed, packed


class Candidate(NamedTuple):
    """A packed graph and what is special about it."""

    label: str
    packed: Packed


def candidates(proto: onnx.ModelProto, newest: int | None, functions: bool = False) -> list[Candidate]:
    """The packed graphs that there are of a quantized one, the smallest first.

    Args:
        proto: all weights inside; it stays as it is.
        newest: opset that they may have; None for any.
        functions: whether they may have functions of their own; those without follow, for files where these do not do.
    """
    every = []
    for label, base in _bases(proto, newest):
        biases = rounded_biases(base.graph)
        for again in {False, functions}:
            name = f"{label} with functions" if again else label
            every.append(Candidate(f"{name} and biases as they are", packed(base, functions=again)))
            if biases:
                every.append(Candidate(f"{name} and {len(biases)} biases in fp16", packed(base, biases, again)))
    return sorted(every, key=lambda candidate: candidate.packed.proto.ByteSize())


def _bases(proto: onnx.ModelProto, newest: int | None) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The graph in its opset, or the first that decoders can have, and in the first with integers of 4 bits."""
    base = raised(_copy(proto))
    yield f"opset {opset(base)}", base
    if opset(base) < FOUR_BITS <= (newest or FOUR_BITS):
        try:
            yield f"opset {FOUR_BITS}", raised(_copy(proto), FOUR_BITS)
        except ValueError:  # an operator that onnx's converter does not know: then in its own opset alone
            return


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def first_right(
    tries: Iterable[Candidate], path: Path, wrong: Callable[[Path], str], note: Callable[[str], None]
) -> Packed:
    """The first candidate that is right, written to a file.

    Args:
        tries: the candidates in order.
        path: the file.
        wrong: what is wrong with a file, as a clause; "" where nothing is.
        note: told of each that is not taken.

    Raises:
        StageError: none is right.
    """
    problem = ""
    for candidate in tries:
        save(candidate.packed.proto, path)
        try:
            with blame(StageError, "ONNX Runtime"):  # which fails to load some graphs in one opset and not in another
                problem = wrong(path)
        except StageError as error:
            problem = f"it does not run, {error}"
        if not problem:
            return candidate.packed
        note(f"packed in {candidate.label} it is not taken: {problem}")
    raise StageError(
        f"the packed file does not do what the file does: {problem}",
        expected="equal outputs, to the bit, by the same operators",
        fix="Leave quantize.pack out",
    )
