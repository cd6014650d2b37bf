"""The smallest mixture of widths that keeps the score: ordered by sensitivity, then quantized and scored."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from onnx import numpy_helper
from pydantic import JsonValue

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import bytes_text
from pipeline.errors import StageError
from pipeline.forms.external_data import load_whole
from pipeline.forms.graph import save
from pipeline.measure.accuracy import scores_on_validation
from pipeline.measure.batching import batches_for
from pipeline.measure.operators.quantized import scales_and_zero_points
from pipeline.measure.size import size_bytes
from pipeline.measure.statistics.pairs import Scores
from pipeline.model import Model, OnnxModel
from pipeline.stage import Context
from stages.quantize.halves.graph import floats, store
from stages.quantize.halves.numbers import loss
from stages.quantize.mixed.front import Choice, Mixture, front
from stages.quantize.mixed.keep import FLOATS, Keep, bits_of
from stages.quantize.mixed.measuring import Row
from stages.quantize.mixed.search import smallest
from stages.quantize.rounding.settings import label

UNHEARD = logging.getLogger(f"{__name__}.unheard")
UNHEARD.addHandler(logging.NullHandler())
UNHEARD.propagate = False


class Trial(Protocol):
    """What a stage makes of a model with other settings, or where some nodes are spared."""

    def __call__(self, inner: Context, spared: Collection[str] = (), **settings: Any) -> OnnxModel:
        """The quantized file, which lies in the folder of the context."""


@dataclass
class Tried:
    """A mixture that was quantized and scored, and what the stage said of it.

    Args:
        mixture: a width for each unit.
        model: the file.
        estimate: what became of the score on validation.
        reports, warnings: of the stage.
    """

    mixture: Mixture
    model: OnnxModel
    estimate: Estimate
    reports: dict[str, JsonValue] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Keeping:
    """A search for a mixture.

    Args:
        keep: the limit and the widths.
        rows: the sensitivity of each unit.
        model: that comes in.
        ctx: of the stage.
        exclude: nodes that stay in fp32 whatever happens.
        trial: makes the file of a mixture.
    """

    keep: Keep
    rows: Sequence[Row]
    model: OnnxModel
    ctx: Context
    exclude: Sequence[str]
    trial: Trial

    def smallest(self) -> OnnxModel:
        """The file of the smallest mixture that keeps the score; reports the mixture and all that were tried.

        Raises:
            StageError: none keeps it; it names the nearest with its figures.
        """
        reference, tried = self._reference(), list[Tried]()
        with self.ctx.progress("mixtures", 2 + len(self.rows).bit_length()) as advance:

            def attempt(mixture: Mixture) -> Tried:
                tried.append(self._try(mixture, reference, len(tried)))
                advance(1, self._figures(tried[-1]))
                return tried[-1]

            chosen = self._search(attempt)
        if chosen is None:
            raise self._out_of_reach(tried, len(reference))
        return self._told(chosen, tried, len(reference))

    def _search(self, attempt: Callable[[Mixture], Tried]) -> Tried | None:
        """The smallest that holds, None where none does; with layers in floats only where 8 bits do not hold."""
        finest = max(self.keep.integers, key=bits_of)
        widest = attempt(tuple(next(c for c in self._choices(row) if c.width == finest) for row in self.rows))
        if self.keep.holds(widest.estimate):
            mixtures = front([[c for c in self._choices(row) if c.width not in FLOATS] for row in self.rows])
        else:
            mixtures = [mixture for mixture in front([*map(self._choices, self.rows)]) if _is_quantized(mixture)]
        at = {widest.mixture: widest}

        def holds(place: int) -> bool:
            mixture = mixtures[place]
            at[mixture] = at.get(mixture) or attempt(mixture)
            return self.keep.holds(at[mixture].estimate)

        place = smallest(len(mixtures), holds)
        return None if place is None else at[mixtures[place]]

    def _choices(self, row: Row) -> list[Choice]:
        """The widths that a unit may have, with the bytes of its weights."""
        sizes = {width: row.elements * bits_of(width) / 8 for width in self.keep.widths}
        effects = {width: row.effects.get(label(width), 0.0) for width in self.keep.widths}
        return [Choice(width, sizes[width], effects[width]) for width in self.keep.widths]

    def _reference(self) -> Scores:
        model: Model | None = self.model if self.keep.of == "incoming" else self.ctx.baseline
        if model is None:
            raise StageError("there is no baseline yet", fix="Set `of: incoming` under `keep`")
        return self._scores(model)

    def _scores(self, model: Model) -> Scores:
        batch = batches_for(model, self.ctx.task).batch
        return scores_on_validation(model, self.ctx.task, batch, lambda steps: None).numpy()

    def _try(self, mixture: Mixture, reference: Scores, number: int) -> Tried:
        reports, warnings = dict[str, JsonValue](), list[str]()
        inner = replace(
            self.ctx,
            directory=self.ctx.directory / f"mixture-{number}",
            report=reports.__setitem__,
            warn=warnings.append,
            log=UNHEARD,
        )
        model = self.trial(inner, **self.settings(mixture))
        if any(choice.width == "fp16" for choice in mixture):
            model = _in_halves(model)
        estimate = self.keep.estimate(self._scores(model), reference, self.ctx.seed)
        model.close()
        if estimate is None:
            problem = "scores are not on a ratio scale, so there is no retention"
            raise StageError(problem, fix="Set `drop` under `keep` instead")
        return Tried(mixture, model, estimate, reports, warnings)

    def settings(self, mixture: Mixture) -> dict[str, Any]:
        """What the stage is told for a mixture."""
        pairs = list(zip(self.rows, mixture, strict=True))
        floats = [name for row, choice in pairs if choice.width in FLOATS for name in row.nodes]
        layers = {name: choice.width for row, choice in pairs if choice.width not in FLOATS for name in row.nodes}
        return {"layers": layers, "exclude": (*self.exclude, *floats)}

    def _told(self, chosen: Tried, tried: Sequence[Tried], examples: int) -> OnnxModel:
        """The file, once everything is reported that the stage said of it."""
        for name, value in chosen.reports.items():
            self.ctx.report(name, value)
        for text in chosen.warnings:
            self.ctx.warn(text)
        widths: dict[str, JsonValue] = {
            row.layer: choice.width if isinstance(choice.width, int) else label(choice.width)
            for row, choice in zip(self.rows, chosen.mixture, strict=True)
        }
        entries = [self._entry(one) for one in tried]
        kept = {"limit": self.keep.text, "examples": examples, **self._entry(chosen)}
        self.ctx.report("keep", {**kept, "widths": widths, "tried": [*entries]})
        self.ctx.log.info("%s, of %d mixtures tried", self._figures(chosen), len(tried))
        return chosen.model

    def _entry(self, tried: Tried) -> dict[str, JsonValue]:
        return {
            "weights_bytes": round(_size(tried.mixture)),
            "size_bytes": size_bytes(tried.model),
            "counts": {**_counts(tried.mixture)},
            **tried.estimate.model_dump(),
        }

    def _figures(self, tried: Tried) -> str:
        counts = ", ".join(f"{count} of {width}" for width, count in _counts(tried.mixture).items())
        what = "retention" if self.keep.retention is not None else "drop"
        interval = f"{tried.estimate.value:.4f} [{tried.estimate.low:.4f}, {tried.estimate.high:.4f}]"
        return f"{what} {interval}, weights of {bytes_text(round(_size(tried.mixture)))} ({counts})"

    def _out_of_reach(self, tried: Sequence[Tried], examples: int) -> StageError:
        nearest = max(tried, key=lambda one: self.keep.nearness(one.estimate))
        problem = f"no mixture of {', '.join(map(label, self.keep.widths))} keeps {self.keep.text} on {examples:,} "
        problem += f"validation examples; the nearest has {self._figures(nearest)}"
        fix = "Ask for that, train with quantize.aware first, or give `operators` without those that cost most"
        return StageError(problem, fix=f"{fix}: `shrink sensitivity` shows them")


def _in_halves(model: OnnxModel) -> OnnxModel:
    """The file with the matrices in fp16 that are not quantized and that fp16 holds; they are computed in fp32."""
    proto = load_whole(model.path)
    aside = scales_and_zero_points(proto.graph)
    floats_left = (tensor for tensor in floats(proto.graph) if len(tensor.dims) > 1 and tensor.name not in aside)
    store(proto.graph, "fp16", [t for t in floats_left if not loss(numpy_helper.to_array(t), "fp16").overflowing])
    result = replace(model, path=model.path.with_name("mixed.onnx"))
    save(proto, result.path)
    return result


def _is_quantized(mixture: Mixture) -> bool:
    return any(choice.width not in FLOATS for choice in mixture)


def _size(mixture: Mixture) -> float:
    return sum(choice.size for choice in mixture)


def _counts(mixture: Mixture) -> dict[str, int]:
    names = [f"{choice.width} bits" if isinstance(choice.width, int) else label(choice.width) for choice in mixture]
    return {name: names.count(name) for name in sorted({*names})}
