"""Smaller models of the same architecture: which arguments of a builder can be halved, which layers can go."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.base.use import Reference
from pipeline.cli.init.facts import Facts
from pipeline.errors import ConfigError
from pipeline.measure.cost import torch_params
from pipeline.model import TorchModel

WIDTHS = re.compile(r"width|hidden|filters|planes|embed|feed_forward|intermediate|d_model|^dim|_dim$|^channels$|^base$")
NARROWEST = 8  # of what is halved

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Student:
    """A way to make a teacher smaller.

    Args:
        arguments: what stands beside `shrink_of: teacher`.
        share: of the teacher's parameters that it has.
    """

    arguments: Arguments
    share: float

    @property
    def narrows(self) -> bool:
        """Whether its layers have fewer outputs, not only fewer layers."""
        return set(self.arguments) != {"layers"}


def students(model: TorchModel, facts: Facts) -> Iterator[Student]:
    """What a teacher can be made, the likeliest first; each but those with fewer layers was built and run.

    Args:
        model: the teacher.
        facts: of it. Transformers lose layers first, other networks width.
    """
    half_depth = facts.depth // 2
    layers = (
        [Student({"layers": half_depth}, 1 - facts.in_layers * (1 - half_depth / facts.depth))] if half_depth else []
    )
    if facts.kind in ("transformer", "sequence"):
        yield from layers
    yield from _narrower(model)
    if facts.kind not in ("transformer", "sequence"):
        yield from layers


def _narrower(model: TorchModel) -> Iterator[Student]:
    """All widths halved, then each by itself."""
    halves = {name: half for name, value in _widths(model.builder).items() if (half := _halved(value)) is not None}
    tried = [halves] if len(halves) > 1 else []
    tried += [{name: half} for name, half in halves.items()]
    for arguments in tried:
        params = _params(model, arguments)
        if params is not None and params < torch_params(model.module):
            yield Student(arguments, params / torch_params(model.module))


def _widths(builder: Reference) -> Arguments:
    """Arguments of a builder that are called like widths, with the values that they have."""
    try:
        parameters = inspect.signature(builder.resolve()).parameters
    except (TypeError, ValueError):  # what has no signature, such as some classes written in C
        return {}
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    return {name: value for name, value in (defaults | builder.arguments).items() if WIDTHS.search(name)}


def _halved(value: Any) -> Any:
    """Half of a width or of a list of widths; None where it is none, odd or too narrow."""
    if isinstance(value, list | tuple):
        halves = [_halved(item) for item in value]
        return halves if halves and None not in halves else None
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value // 2 if whole and value % 2 == 0 and value >= 2 * NARROWEST else None


def _params(model: TorchModel, changes: Arguments) -> int | None:
    """Parameters of what the builder gives; None where it fails, or gives outputs of other shapes."""
    builder = model.builder.model_copy(update={"arguments": model.builder.arguments | changes})
    try:
        student = TorchModel.build(builder, model.example, model.axes)
        outputs = student.predict(student.example)
    except (ConfigError, RuntimeError, ValueError, TypeError, KeyError, IndexError):
        return None  # of any such failure the answer is that it does not fit
    expected = {name: value.shape for name, value in model.predict(model.example).items()}
    shapes = {name: value.shape for name, value in outputs.items()}
    return torch_params(student.module) if shapes == expected else None
