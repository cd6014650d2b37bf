"""`keep:`: how much of the score stays, and what layers may become for it."""

import math
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.base.data.strict import Strict
from pipeline.base.estimate import Estimate
from pipeline.errors import ConfigError
from pipeline.measure.statistics.means import drop, retention
from pipeline.measure.statistics.pairs import Scores
from pipeline.measure.statistics.shares import LEVEL
from pipeline.stage import Preview
from pipeline.task import correct, highest
from stages.quantize.rounding.settings import Codebook
from stages.quantize.rounding.settings import Width as Quantized

Width = Quantized | Literal["fp16", "fp32"]
FLOATS = ("fp16", "fp32")
BITS = {"fp16": 16.0, "fp32": 32.0, "ternary": 1.6, "apot5": 5.0, "apot4": 4.0, "apot3": 3.0}


KEEP = (
    "{retention: 0.99} or {drop: 0.003}: instead of bits, the smallest mixture of widths by layer that keeps it on "
    "validation"
)


def bits_of(width: int | str | Codebook) -> float:
    """Of a weight, once packed."""
    if isinstance(width, Codebook):
        return math.log2(width.codebook)
    return float(width) if isinstance(width, int) else BITS[width]


class Keep(Strict):
    """The score that stays, on validation, with its whole 95 % interval, and the widths that layers may have.

    Args:
        retention: at least this share of the score.
        drop: at most so much less of it.
        of: of the model that comes in, or of the baseline.
        widths: bits 2 to 8, ternary, {codebook: 16}, and fp16 and fp32 for layers that are not quantized.
        examples: of the calibration split, on which the sensitivity of layers is measured.
    """

    retention: float | None = Field(None, gt=0, le=1)
    drop: float | None = Field(None, ge=0)
    of: Literal["incoming", "baseline"] = "incoming"
    widths: tuple[Width, ...] = Field((8, 4, 2, "fp16", "fp32"), min_length=1)
    examples: int = Field(128, ge=1)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.retention is None) == (self.drop is None):
            raise ValueError("one of `retention` and `drop`")
        if len({*self.widths}) < 2:
            raise ValueError("two `widths` or more, for one is no choice: set `bits` instead")
        if not self.integers:
            raise ValueError("a width in `widths` that is quantized, such as 8")
        return self

    @property
    def integers(self) -> tuple[int | str | Codebook, ...]:
        """The widths at which a layer is quantized."""
        return tuple(width for width in self.widths if width not in FLOATS)

    @property
    def text(self) -> str:
        """The limit in words."""
        of = " of the baseline's score" if self.of == "baseline" else ""
        return f"retention {self.retention:g}{of}" if self.retention else f"drop {self.drop:g}{of}"

    def estimate(self, scores: Scores, reference: Scores, seed: int) -> Estimate | None:
        """What became of the score, (N,) each in pairs; None where a ratio means nothing."""
        return retention(scores, reference, seed) if self.retention is not None else drop(scores, reference, seed)

    def holds(self, estimate: Estimate) -> bool:
        """Whether the whole interval is within the limit."""
        return estimate.low >= self.retention if self.retention is not None else estimate.high <= (self.drop or 0.0)

    def nearness(self, estimate: Estimate) -> float:
        """How good an interval is, of which the limited end counts; more is better."""
        return estimate.low if self.retention is not None else -estimate.high

    def check(self, settings: dict[str, Any], preview: Preview) -> Iterator[str]:
        """Nothing to tell.

        Args:
            settings: those of the stage that are not the default.
            preview: see `Stage.check`.

        Raises:
            ConfigError: there are too few validation examples, no baseline, or settings that `keep` chooses itself.
        """
        if beside := [name for name in ("bits", "codebook", "layers", "first_last") if name in settings]:
            fix = "Leave it out, or give `widths` under `keep`"
            raise ConfigError(f"`{beside[0]}` stands beside `keep`, which chooses it for each layer", fix=fix)
        if self.of == "baseline" and preview.in_baseline:
            raise ConfigError("`keep: {of: baseline}` in `baseline:`, where there is none yet")
        if preview.validation.varies:
            problem = "the examples of validation are others each time that they are read"
            raise ConfigError(problem, expected="the same, on which models are compared in pairs")
        if self.retention is not None and highest(preview.score) == 0:
            problem = "the scores are errors below zero, of which no share can be kept"
            raise ConfigError(problem, fix="Set `drop` under `keep`, in the unit of the score")
        size = len(preview.validation)
        if not size:
            raise ConfigError("the validation split is empty", expected="examples on which `keep` is decided")
        if getattr(preview.score, "func", preview.score) is correct and preview.labelling.kind == "single_label":
            self._check_size(size)
        yield from ()

    def _check_size(self, size: int) -> None:
        """Refuse what cannot be told: the share that is lost may be so large though no example is."""
        room = 1 - self.retention if self.retention is not None else self.drop or 0.0
        needed = math.ceil(math.log((1 - LEVEL) / 2) / math.log1p(-room)) if 0 < room < 1 else None
        if needed is None or size < needed:
            largest = 1 - ((1 - LEVEL) / 2) ** (1 / size)
            problem = f"validation has {size:,} examples: where none of them is lost {largest:.2g} still may be"
            expected = f"{needed:,} or more for {self.text}" if needed else f"some room for {self.text}"
            raise ConfigError(problem, expected=expected, fix="Allow more, or hold out more of train")
