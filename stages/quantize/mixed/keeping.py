"""The smallest mixture of widths that keeps the score: ordered by sensitivity, then quantized and scored."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Protocol

from pydantic import JsonValue

from pipeline.context import Context
from pipeline.errors import Interruption, NotFinite, StageError
from pipeline.measure.statistics.pairs import Scores
from pipeline.model import OnnxModel
from stages.quantize.mixed.front import Choice, Mixture, front
from stages.quantize.mixed.keep import Keep, Offer, bits_of
from stages.quantize.mixed.measuring import Row
from stages.quantize.mixed.scores import reference_of, scores_of
from stages.quantize.mixed.search import smallest
from stages.quantize.mixed.told import Tried, became, figures, is_quantized, of_mixture, tell
from stages.quantize.quantizing.assigned import Assigned, Trial
from stages.quantize.rounding.settings import Codebook, label

UNHEARD = logging.getLogger(f"{__name__}.unheard")
UNHEARD.addHandler(logging.NullHandler())
UNHEARD.propagate = False


class Quantizing(Protocol):
    """What a stage says of itself to a search; see `KeepsScore`."""

    remedy: ClassVar[str]
    spares_in: ClassVar[str]

    def offer(self) -> Offer: ...  # noqa: D102
    def done(self, reports: Mapping[str, Any]) -> set[str]: ...  # noqa: D102
    def spared(self, model: OnnxModel, nodes: Collection[str]) -> list[str]: ...  # noqa: D102


@dataclass
class Keeping:
    """A search for a mixture.

    Args:
        stage: that quantizes.
        keep: the limit and the widths.
        rows: the sensitivity of each unit; those that turn out not to be quantized leave them.
        model: that comes in.
        ctx: of the stage.
        trial: makes the file of a mixture.
        tried: the mixtures that have an estimate.
        unscored: those that have none, as their answers are not finite or scores below zero have no retention.
        quantized: the names of the nodes that the first of them has quantized.
    """

    stage: Quantizing
    keep: Keep
    rows: Sequence[Row]
    model: OnnxModel
    ctx: Context
    trial: Trial
    tried: list[Tried[OnnxModel]] = field(default_factory=list)
    unscored: list[Mixture] = field(default_factory=list)
    quantized: set[str] = field(default_factory=set)

    def smallest(self) -> OnnxModel:
        """The file of the smallest mixture that keeps the score; reports the mixture and all that were tried.

        Raises:
            StageError: none keeps it; it names the nearest with its figures. Or a layer is smaller than each codebook
                that it may have.
            Interruption: a stop was asked for.
        """
        self._check_codebooks()
        reference = reference_of(self.keep, self.model, self.ctx)
        most = 1 + (len(self.rows) * len(self.keep.choices(self.stage.offer()))).bit_length()
        with self.ctx.progress("mixtures", most) as advance:

            def attempt(mixture: Mixture) -> Tried[OnnxModel] | None:
                tried = self._try(mixture, reference)
                advance(1, figures(self.keep, tried) if tried else self.keep.unscored)
                return tried

            chosen = self._search(attempt)
        if chosen is None:
            raise self._out_of_reach(len(reference))
        self.ctx.report("sensitivity", {"layers": [asdict(row) for row in self.rows]})
        widths, settings = became(self.rows, chosen), self._settings(chosen)
        more: dict[str, JsonValue] = {"unscored": [*map(of_mixture, self.unscored)]} if self.unscored else {}
        more |= {"examples": len(reference), "widths": widths, "settings": settings}
        tell(self.keep, chosen, self.tried, self.ctx, **more)
        return chosen.model

    def _search(self, attempt: Callable[[Mixture], Tried[OnnxModel] | None]) -> Tried[OnnxModel] | None:
        """The smallest that holds, None where none does; with layers in floats only where 8 bits do not hold."""
        mixture, widest = self._widest(attempt)
        choices, plain = [*map(self._choices, self.rows)], self.stage.offer().plain
        if self._holds(widest):
            # Of a layer whose effect more bits do not lessen the front has fewer, to the end.
            mixtures = front([[choice for choice in some if choice.width not in plain] for some in choices])
            mixtures += [mixture] if mixtures[-1] != mixture else []
        else:
            mixtures = [mixture for mixture in front(choices) if is_quantized(mixture, plain)]
        at = {mixture: widest}

        def holds(place: int) -> bool:
            if mixtures[place] not in at:
                at[mixtures[place]] = attempt(mixtures[place])
            return self._holds(at[mixtures[place]])

        place = smallest(len(mixtures), holds)
        return None if place is None else at[mixtures[place]]

    def _holds(self, tried: Tried[OnnxModel] | None) -> bool:
        return tried is not None and self.keep.holds(tried.estimate)

    def _widest(self, attempt: Callable[[Mixture], Tried[OnnxModel] | None]) -> tuple[Mixture, Tried[OnnxModel] | None]:
        """All layers at the most bits; those that stay in fp32 by themselves are no choice from then on."""
        plain = self.stage.offer().plain

        def mixture() -> Mixture:
            every = [[choice for choice in self._choices(row) if choice.width not in plain] for row in self.rows]
            return tuple(max(some, key=lambda choice: choice.size) for some in every)

        widest = attempt(mixture())
        self.rows = [row for row in self.rows if self.quantized.issuperset(row.nodes)]
        return mixture(), replace(widest, mixture=mixture()) if widest else None

    def _choices(self, row: Row) -> list[Choice]:
        """The widths that a unit may have, with the bytes of its weights; codebooks that do not fit have no effect."""
        bytes_each, offer = row.elements / 8, self.stage.offer()
        widths = [w for w in self.keep.choices(offer) if label(w) in row.effects or w in offer.plain]
        return [Choice(width, bits_of(width) * bytes_each, row.effects.get(label(width), 0.0)) for width in widths]

    def _check_codebooks(self) -> None:
        widths = {*map(label, self.keep.quantized(self.stage.offer()))}
        for row in self.rows:
            if widths.isdisjoint(row.effects):
                problem = f"a weight of `{row.layer}` has fewer numbers than each codebook of `keep`"
                raise StageError(problem, fix="Add bits to `widths` under `keep`")

    def _try(self, mixture: Mixture, reference: Scores) -> Tried[OnnxModel] | None:
        """The mixture; None where it has no estimate."""
        if self.ctx.interrupted():
            raise Interruption("stopped between two mixtures")
        reports, warnings = dict[str, JsonValue](), list[str]()
        directory = self.ctx.directory / f"mixture-{len(self.tried) + len(self.unscored)}"
        sinks: dict[str, Any] = {"report": reports.__setitem__, "warn": warnings.append, "log": UNHEARD}
        estimate = None
        try:
            with suppress(NotFinite):
                model = self.trial(replace(self.ctx, directory=directory, **sinks), self._assigned(mixture))
                estimate = self.keep.estimate(scores_of(model, self.ctx), reference, self.ctx.seed)
                model.close()
        finally:
            quantized = self.stage.done(reports)
            self.quantized = self.quantized or quantized
        if estimate is None:
            self.unscored.append(mixture)
            return None
        self.tried.append(Tried(mixture, model, estimate, reports, warnings, quantized))
        return self.tried[-1]

    def _assigned(self, mixture: Mixture) -> Assigned:
        plain = self.stage.offer().plain
        pairs = [(name, choice.width) for row, choice in zip(self.rows, mixture, strict=True) for name in row.nodes]
        spared, halves = ([n for n, width in pairs if width == name and name in plain] for name in ("fp32", "fp16"))
        return Assigned(spared, halves, {n: width for n, width in pairs if width not in plain})

    def _settings(self, tried: Tried[OnnxModel]) -> dict[str, JsonValue]:
        """The settings that make the same of the layers, but for weights in fp16 beside integers."""
        layers: dict[str, JsonValue] = {}
        left: list[str] = []
        for row, choice in zip(self.rows, tried.mixture, strict=True):
            width = choice.width.model_dump() if isinstance(choice.width, Codebook) else choice.width
            if tried.quantized.issuperset(row.nodes):
                layers |= dict.fromkeys(row.nodes, width)
            else:
                left += row.nodes
        offer = self.stage.offer()
        widths: dict[str, JsonValue] = {"layers": layers} if offer.has_more or len(offer.quantized) > 1 else {}
        own = getattr(self.stage, self.stage.spares_in)
        return {**widths, self.stage.spares_in: [*own, *self.stage.spared(self.model, left)]}

    def _out_of_reach(self, examples: int) -> StageError:
        widths = ", ".join(map(label, self.keep.choices(self.stage.offer())))
        problem = f"no mixture of {widths} keeps {self.keep.text} on {examples:,} validation examples"
        fix = f"{self.stage.remedy}: `shrink sensitivity` shows them"
        if not self.tried:
            return StageError(f"{problem}: all have {self.keep.unscored}", fix=fix)
        nearest = max(self.tried, key=lambda one: self.keep.nearness(one.estimate))
        fix = f"Ask for that, or {fix[0].lower()}{fix[1:]}"
        return StageError(f"{problem}; the nearest has {figures(self.keep, nearest)}", fix=fix)
