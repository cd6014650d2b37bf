"""`keep:`: how much of the score stays, and what layers may become for it."""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from pipeline.base.data.strict import Strict
from pipeline.base.estimate import Estimate
from pipeline.context import Preview
from pipeline.errors import ConfigError
from pipeline.measure.statistics.means import drop, retention
from pipeline.measure.statistics.pairs import Scores
from pipeline.measure.statistics.shares import LEVEL
from pipeline.task import correct, highest
from stages.quantize.rounding.settings import Codebook, label
from stages.quantize.rounding.settings import Width as Quantized

Width = Quantized | Literal["fp16", "bf16", "fp32"]
FLOATS = ("fp16", "bf16", "fp32")
BITS = {"fp16": 16.0, "bf16": 16.0, "fp32": 32.0, "ternary": 1.6, "apot5": 5.0, "apot4": 4.0, "apot3": 3.0}


KEEP = (
    "{retention: 0.99} or {drop: 0.003}: instead of one width for all, the smallest mixture of widths by layer that "
    "keeps it on validation"
)


class Offer(NamedTuple):
    """The widths that a stage has for layers.

    Args:
        quantized: of those that it quantizes, unless `widths` says otherwise.
        plain: of those that it does not.
        has_more: whether `widths` may have any bits, ternary and codebooks, too.
    """

    quantized: tuple[Width, ...] = (8, 4, 2)
    plain: tuple[Width, ...] = ("fp16", "fp32")
    has_more: bool = True

    @property
    def every(self) -> tuple[Width, ...]:
        """Those that are tried unless `widths` says otherwise."""
        return (*self.quantized, *self.plain)

    @property
    def text(self) -> str:
        """All that there are."""
        *names, last = map(label, self.plain if self.has_more else self.every)
        return ", ".join(["bits from 2 to 8, ternary, {codebook: 16}"] * self.has_more + names) + f" or {last}"

    def has(self, width: Width) -> bool:
        """Whether a layer may have it."""
        return width in self.every or (self.has_more and (not isinstance(width, str) or width == "ternary"))


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
        widths: bits 2 to 8, ternary, {codebook: 16}, and fp16, bf16 and fp32, as far as the stage has them; null takes
            those that it offers.
        examples: of the calibration split, on which the sensitivity of layers is measured.
    """

    retention: float | None = Field(None, gt=0, le=1)
    drop: float | None = Field(None, ge=0)
    of: Literal["incoming", "baseline"] = "incoming"
    widths: tuple[Width, ...] | None = Field(None, min_length=1)
    examples: int = Field(128, ge=1)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.retention is None) == (self.drop is None):
            raise ValueError("one of `retention` and `drop`")
        if self.widths is not None and len({*self.widths}) < 2:
            raise ValueError("two `widths` or more, for one is no choice")
        return self

    def choices(self, offer: Offer) -> tuple[Width, ...]:
        """The widths that layers may have."""
        return self.widths or offer.every

    def quantized(self, offer: Offer) -> tuple[Width, ...]:
        """Those of them at which a layer is quantized."""
        return tuple(width for width in self.choices(offer) if width not in offer.plain)

    @property
    def text(self) -> str:
        """The limit in words."""
        of = " of the baseline's score" if self.of == "baseline" else ""
        return f"retention {self.retention:g}{of}" if self.retention else f"drop {self.drop:g}{of}"

    @property
    def unscored(self) -> str:
        """What a mixture has of which no estimate comes."""
        return "answers that are not finite" + (" or scores below zero" if self.retention is not None else "")

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

    def check_widths(self, offer: Offer) -> None:
        """Raise ConfigError for a width that a stage has not, and where none is of a layer that it quantizes."""
        widths = self.choices(offer)
        if others := [width for width in widths if not offer.has(width)]:
            raise ConfigError(f"`keep` has the width {label(others[0])}", expected=offer.text)
        if not self.quantized(offer):
            problem = f"`keep` has no width of a layer that is quantized: {', '.join(map(label, widths))}"
            raise ConfigError(problem, expected=f"one such as {label(offer.quantized[0])}")

    def _check_size(self, size: int) -> None:
        """Refuse what cannot be told: the share that is lost may be so large though no example is."""
        room = 1 - self.retention if self.retention is not None else self.drop or 0.0
        needed = math.ceil(math.log((1 - LEVEL) / 2) / math.log1p(-room)) if 0 < room < 1 else None
        if needed is None or size < needed:
            largest = 1 - ((1 - LEVEL) / 2) ** (1 / size)
            problem = f"validation has {size:,} examples: where none of them is lost {largest:.2g} still may be"
            expected = f"{needed:,} or more for {self.text}" if needed else f"some room for {self.text}"
            raise ConfigError(problem, expected=expected, fix="Allow more, or hold out more of train")
