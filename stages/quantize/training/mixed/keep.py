"""`keep:` of a training with integers: the limit, the widths of layers, and how many trainings it may take."""

from collections.abc import Iterable
from typing import Any

from pydantic import Field, field_validator

from pipeline.errors import ConfigError
from stages.quantize.mixed.keep import FLOATS, Keep
from stages.quantize.rounding.settings import Codebook, label
from stages.quantize.training.mixed.parts import Part
from stages.quantize.training.numbers.schemes import Bits


class TrainedKeep(Keep):
    """The score that stays, on validation, with its whole 95 % interval, and the widths that layers may have.

    Args:
        widths: bits 2 to 8, ternary, apot5, apot4, apot3, {codebook: 16}.
        trainings: mixtures that are trained at most, each for all epochs.
    """

    widths: tuple[Bits | Codebook, ...] = Field((8, 4, 2), min_length=1)  # type: ignore[assignment]  # apot is new
    trainings: int = Field(4, ge=2)

    @field_validator("widths", mode="before")
    @classmethod
    def _in_integers(cls, widths: Any) -> Any:
        floats = [width for width in widths if width in FLOATS] if isinstance(widths, list | tuple) else []
        if floats:
            raise ValueError(f"{floats[0]}: quantize.aware trains every layer in integers and leaves none in floats")
        return widths

    def fitting(self, part: Part) -> tuple[int | str | Codebook, ...]:
        """The widths that a layer may have: a codebook has no more values than a weight."""
        return tuple(w for w in self.widths if not isinstance(w, Codebook) or w.codebook <= min(part.sizes))

    def foreseen(self, parts: Iterable[Part], epochs: int) -> str:
        """How many trainings it may take. Raises ConfigError where a layer can have none of the widths."""
        for part in parts:
            if not self.fitting(part):
                problem = f"`{part.name}` has a weight of {min(part.sizes)} numbers, fewer than each codebook of `keep`"
                raise ConfigError(problem, fix="Add bits to `widths` under `keep`")
        widths = ", ".join(map(label, self.widths))
        each = f"{epochs} epoch{'s' * (epochs > 1)}"
        return f"`keep` is sought among mixtures of {widths}: {self.trainings} trainings of {each} at most"
