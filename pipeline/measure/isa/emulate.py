"""A model that answers here as an int8 file does on a CPU with other instructions."""

import shutil
from collections.abc import Collection
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.base.hardware import Isa, saturates_on
from pipeline.errors import StageError, blame
from pipeline.forms.external_data import CONFIGS
from pipeline.forms.sandbox.process import Limits, Process
from pipeline.measure.isa.errors import NoIntegersError, UnknownError
from pipeline.measure.isa.work import Layer, write_emulated
from pipeline.model import Deployed, Seq2SeqOnnx

ERRORS: dict[str, type[StageError]] = {error.__name__: error for error in (NoIntegersError, UnknownError)}


class Emulated(NamedTuple):
    """The model, and its layers that are at risk, by the file that they are in."""

    model: Deployed
    layers: list[Layer]


def emulate(model: Deployed, isa: Isa, folder: Path, *, exact: Collection[str] = (), counted: bool = False) -> Emulated:
    """What a model is on another CPU, in standard operators that every CPU computes alike.

    Its integers are those that ONNX Runtime's kernels have there: pairs of products of uint8 and int8 saturate in 16
    bits on x86 without VNNI, and sums are exact with it and on Arm. What is computed in floats is as exact as here.

    Args:
        model: with integers. A file from outside is opened in a process of its own.
        isa: of the CPU.
        folder: gets the files; none where this CPU answers so too, for then it is the model itself.
        exact: names of layers whose sums do not saturate nevertheless.
        counted: give it outputs that count what saturates; see `rewrite.COUNTS`.

    Raises:
        NoIntegersError: the file has none.
        UnknownError: it is not known what one of its operators answers there.
        ForeignError: a file from outside crashed the process that rewrites it.
        StageError: ONNX Runtime refuses the file.
    """
    as_it_is = not saturates_on(isa) and not saturates_on(None)
    how: dict[str, Any] = {
        "saturates": saturates_on(isa),
        "exact": sorted(exact),
        "counted": counted,
        "as_it_is": as_it_is,
    }
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Seq2SeqOnnx):
        return _several(model, folder, how)
    target = folder / "emulated.onnx"
    with blame(StageError, f"{model.path.name} on {isa}"):
        if model.outside:
            layers = _there(model.path, model.outside.limits, target, how)
        else:
            layers = write_emulated(model.path, target, **how)
    return Emulated(model if as_it_is else replace(model, path=target), layers)


def _several(model: Seq2SeqOnnx, folder: Path, how: dict[str, Any]) -> Emulated:
    """The graphs of an encoder-decoder, in a folder."""
    layers = []
    for graph in model.graphs:
        with blame(StageError, graph.name):
            layers += write_emulated(graph, folder / graph.name, **how)
    if how["as_it_is"]:
        return Emulated(model, layers)
    for name in CONFIGS:
        shutil.copyfile(model.path / name, folder / name)
    return Emulated(replace(model, path=folder), layers)


def _there(source: Path, limits: Limits, target: Path, how: dict[str, Any]) -> list[Layer]:
    """Have a process of its own rewrite a file from outside."""
    with closing(Process(source, "pipeline.measure.isa.child", "rewrites", limits)) as process:
        paths = {"source": str(source.absolute()), "target": str(target.absolute())}
        try:
            answer, _ = process.ask({**paths, "how": how}, {})
        except RuntimeError as error:  # what a library said there
            raise StageError(str(error).rstrip(".")) from error
    if "error" in answer:
        raise ERRORS.get(str(answer["error"]), StageError)(**answer["parts"])
    return [Layer(*layer) for layer in answer["layers"]]
