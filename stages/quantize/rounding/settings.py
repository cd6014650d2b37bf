"""How weights are rounded: the settings that quantizations after training have in common."""

from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any, Literal

import onnx
from pydantic import Field

from pipeline.base.data.strict import Strict
from pipeline.context import Preview
from pipeline.errors import ConfigError
from stages.quantize.graphs.names import Names
from stages.quantize.halves.numbers import TYPES
from stages.quantize.quantizing.assigned import Assigned
from stages.quantize.rounding.layers import Scheme
from stages.quantize.rounding.plan import schemes

FEW = 100
Bits = Annotated[int, Field(ge=2, le=8)] | Literal["ternary"]
Size = Annotated[int, Field(ge=2, le=256)]


class Codebook(Strict):
    """A codebook for a layer.

    Args:
        codebook: how many values its weights take.
    """

    codebook: Size


Width = Bits | Codebook


def label(width: object) -> str:
    """What a width is called, as a key of effects and in texts: 8, ternary, codebook 16, fp16."""
    return f"codebook {width.codebook}" if isinstance(width, Codebook) else str(width)


def schemes_of(widths: Iterable[int | str | Codebook]) -> dict[str, Scheme]:
    """The numbers that each width allows, by its label."""
    return {label(width): _scheme(width) for width in widths}


class RoundingSettings(Strict):
    """Which integers weights become; the settings of every quantization after training."""

    bits: Bits = Field(8, description="of the weights: 2 to 8, or ternary for -1, 0 and 1; they stay int8 in the file")
    codebook: Size | None = Field(
        None, description="instead of bits: how many int8 values weights take, chosen for each layer by k-means"
    )
    layers: dict[str, Width] = Field(
        {}, description="bits, or {codebook: 16}, of some layers, by the name of a node, a layer or what layers are in"
    )
    first_last: Bits = Field(8, description="bits of the first and of the last node with a weight, unless named")
    rounding: Literal["nearest", "adaptive"] = Field(
        "nearest", description="adaptive chooses integers so that outputs on the calibration data change least"
    )
    examples: int | None = Field(None, ge=1, description="calibration examples at most; null takes the whole split")
    batch_size: int = Field(64, ge=1, description="calibration examples a batch; the memory it takes grows with it")

    def check_rounding(self) -> None:
        """Raise ConfigError where settings contradict each other."""
        if self.codebook is not None and self.bits != 8:
            problem = f"`bits` is {self.bits} and `codebook` is {self.codebook}"
            raise ConfigError(problem, expected="one of them", fix="Leave one out; `layers` can mix them")

    def rounds_finely(self, *widths: object) -> bool:
        """Whether all weights have 8 bits, by the settings and by these widths."""
        every = (self.bits, self.first_last, *self.layers.values(), *widths)
        return self.codebook is None and all(width == 8 for width in every)

    def few_examples(self, preview: Preview) -> Iterator[str]:
        """A warning where the calibration data are few."""
        example_count = len(preview.calibration)
        used = min(example_count, self.examples or example_count)
        if used < FEW:
            yield f"calibration uses {used} examples of {example_count}; what it chooses is steadier with {FEW} or more"

    def plan(
        self,
        graph: onnx.GraphProto,
        names: Names,
        asked: Collection[str],
        assigned: Assigned | None = None,
        **more: bool,
    ) -> dict[str, Any]:
        """What a step is told: the integers that each node's weight may take, and how they are chosen.

        Args:
            graph, names: as prepared.
            asked: names of the nodes that would be quantized.
            assigned: by a search; then none is named by the user, and some stay as they are.
            more: further settings of the step.
        """
        default: Scheme = {"bits": self.bits} if self.codebook is None else {"codebook": self.codebook}
        widths = {**self.layers, **(assigned.widths if assigned else {})}
        layers = {key: _scheme(value) for key, value in widths.items()}
        chosen, named = schemes(graph, names, asked, default, _scheme(self.first_last), layers)
        if assigned is not None:
            chosen = {name: scheme for name, scheme in chosen.items() if names.nodes[name] not in assigned.left}
            named = []
        return {"schemes": chosen, "named": named, "rounding": self.rounding, **more}


def _scheme(value: int | str | Codebook) -> Scheme:
    if isinstance(value, Codebook):
        return {"codebook": value.codebook}
    return {"half": value} if value in TYPES else {"bits": value}
