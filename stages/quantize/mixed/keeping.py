"""The smallest mixture of widths that keeps the score: ordered by sensitivity, then quantized and scored."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import JsonValue

from pipeline.errors import Interruption, StageError
from pipeline.measure.statistics.pairs import Scores
from pipeline.model import OnnxModel
from pipeline.stage import Context
from stages.quantize.mixed.front import Choice, Mixture, front
from stages.quantize.mixed.keep import FLOATS, Keep, bits_of
from stages.quantize.mixed.measuring import Row
from stages.quantize.mixed.scores import reference_of, scores_of
from stages.quantize.mixed.search import smallest
from stages.quantize.mixed.told import Tried, figures, is_quantized, report
from stages.quantize.quantizing.assigned import Assigned, Trial
from stages.quantize.rounding.settings import label

UNHEARD = logging.getLogger(f"{__name__}.unheard")
UNHEARD.addHandler(logging.NullHandler())
UNHEARD.propagate = False


@dataclass
class Keeping:
    """A search for a mixture.

    Args:
        keep: the limit and the widths.
        rows: the sensitivity of each unit; those that turn out not to be quantized leave them.
        model: that comes in.
        ctx: of the stage.
        trial: makes the file of a mixture.
    """

    keep: Keep
    rows: Sequence[Row]
    model: OnnxModel
    ctx: Context
    trial: Trial
    tried: list[Tried[OnnxModel]] = field(default_factory=list)

    def smallest(self) -> OnnxModel:
        """The file of the smallest mixture that keeps the score; reports the mixture and all that were tried.

        Raises:
            StageError: none keeps it; it names the nearest with its figures.
            Interruption: a stop was asked for.
        """
        reference = reference_of(self.keep, self.model, self.ctx)
        most = 1 + (len(self.rows) * len(self.keep.widths)).bit_length()
        with self.ctx.progress("mixtures", most) as advance:

            def attempt(mixture: Mixture) -> Tried[OnnxModel]:
                self.tried.append(self._try(mixture, reference))
                advance(1, figures(self.keep, self.tried[-1]))
                return self.tried[-1]

            chosen = self._search(attempt)
        if chosen is None:
            raise self._out_of_reach(len(reference))
        self.ctx.report("sensitivity", {"layers": [asdict(row) for row in self.rows]})
        return report(self.keep, self.rows, chosen, self.tried, len(reference), self.ctx)

    def _search(self, attempt: Callable[[Mixture], Tried[OnnxModel]]) -> Tried[OnnxModel] | None:
        """The smallest that holds, None where none does; with layers in floats only where 8 bits do not hold."""
        widest = self._widest(attempt)
        choices = [*map(self._choices, self.rows)]
        if self.keep.holds(widest.estimate):
            # Of a layer whose effect more bits do not lessen the front has fewer, to the end.
            mixtures = front([[choice for choice in some if choice.width not in FLOATS] for some in choices])
            mixtures += [widest.mixture] if mixtures[-1] != widest.mixture else []
        else:
            mixtures = [mixture for mixture in front(choices) if is_quantized(mixture)]
        at = {widest.mixture: widest}

        def holds(place: int) -> bool:
            mixture = mixtures[place]
            at[mixture] = at.get(mixture) or attempt(mixture)
            return self.keep.holds(at[mixture].estimate)

        place = smallest(len(mixtures), holds)
        return None if place is None else at[mixtures[place]]

    def _widest(self, attempt: Callable[[Mixture], Tried[OnnxModel]]) -> Tried[OnnxModel]:
        """All layers at the most bits; those that stay in fp32 by themselves are no choice from then on."""
        finest = max(self.keep.integers, key=bits_of)

        def mixture() -> Mixture:
            return tuple(next(c for c in self._choices(row) if c.width == finest) for row in self.rows)

        widest = attempt(mixture())
        self.rows = [row for row in self.rows if widest.quantized.issuperset(row.nodes)]
        return replace(widest, mixture=mixture())

    def _choices(self, row: Row) -> list[Choice]:
        """The widths that a unit may have, with the bytes of its weights."""
        sizes = {width: row.elements * bits_of(width) / 8 for width in self.keep.widths}
        effects = {width: row.effects.get(label(width), 0.0) for width in self.keep.widths}
        return [Choice(width, sizes[width], effects[width]) for width in self.keep.widths]

    def _try(self, mixture: Mixture, reference: Scores) -> Tried[OnnxModel]:
        if self.ctx.interrupted():
            raise Interruption("stopped between two mixtures")
        reports, warnings = dict[str, JsonValue](), list[str]()
        directory = self.ctx.directory / f"mixture-{len(self.tried)}"
        sinks: dict[str, Any] = {"report": reports.__setitem__, "warn": warnings.append, "log": UNHEARD}
        pairs = list(zip(self.rows, mixture, strict=True))
        layers = {name: choice.width for row, choice in pairs if choice.width not in FLOATS for name in row.nodes}
        left = [[n for row, choice in pairs if choice.width == width for n in row.nodes] for width in ("fp32", "fp16")]
        model = self.trial(replace(self.ctx, directory=directory, **sinks), Assigned(*left), layers=layers)
        estimate = self.keep.estimate(scores_of(model, self.ctx), reference, self.ctx.seed)
        model.close()
        if estimate is None:
            raise StageError("no score is above zero any more", fix="Give wider `widths` under `keep`")
        return Tried(mixture, model, estimate, reports, warnings)

    def _out_of_reach(self, examples: int) -> StageError:
        nearest = max(self.tried, key=lambda one: self.keep.nearness(one.estimate))
        problem = f"no mixture of {', '.join(map(label, self.keep.widths))} keeps {self.keep.text} on {examples:,} "
        problem += f"validation examples; the nearest has {figures(self.keep, nearest)}"
        fix = "Ask for that, train with quantize.aware first, or give `operators` without those that cost most"
        return StageError(problem, fix=f"{fix}: `shrink sensitivity` shows them")
