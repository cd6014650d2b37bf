"""The smallest mixture of widths that keeps the score once it is trained: guessed without training, then tried."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import JsonValue

from pipeline.base.devices import set_seed
from pipeline.base.estimate import Estimate
from pipeline.context import Context
from pipeline.errors import Interruption, NotFinite, StageError
from pipeline.measure.statistics.pairs import Scores
from pipeline.model import TorchModel
from stages.quantize.mixed.front import Choice, Mixture, front
from stages.quantize.mixed.keep import bits_of
from stages.quantize.mixed.keeping import UNHEARD
from stages.quantize.mixed.measuring import Row
from stages.quantize.mixed.scores import reference_of, scores_of
from stages.quantize.mixed.search import smallest
from stages.quantize.mixed.told import Tried, entry, figures, of_mixture, tell
from stages.quantize.rounding.settings import Codebook, label
from stages.quantize.training.mixed.effects import Layers
from stages.quantize.training.mixed.keep import TrainedKeep


@dataclass
class TrainedKeeping:
    """A search for a mixture, of which each is trained from the model that came in.

    Args:
        keep: the limit, the widths and the trainings.
        rows: the sensitivity of each layer.
        model: that comes in.
        ctx: of the stage.
        untrained: the network with such widths and calibrated ranges.
        trained: the same, trained in the folder of a context.
        guesses, tried: the mixtures that have an estimate, untrained and trained.
        unscored: those trained that have none, as their answers are not finite or scores below zero have no retention.
    """

    keep: TrainedKeep
    rows: Sequence[Row]
    model: TorchModel
    ctx: Context
    untrained: Callable[[Layers], TorchModel]
    trained: Callable[[Layers, Context], TorchModel]
    guesses: list[Tried[TorchModel]] = field(default_factory=list)
    tried: list[Tried[TorchModel]] = field(default_factory=list)
    unscored: list[Mixture] = field(default_factory=list)

    def smallest(self) -> TorchModel:
        """The smallest network that keeps the score; reports its mixture, and all that were tried.

        Raises:
            StageError: none keeps it; it names the nearest with its figures.
            Interruption: a stop was asked for; what is trained is in the folder of the stage and is not trained again.
        """
        reference = reference_of(self.keep, self.model, self.ctx) if self.ctx.world.main else None
        mixtures = self._mixtures()
        row = to_train(mixtures, self._guess(mixtures, reference), 2**self.keep.trainings - 1)
        place = smallest(len(row), lambda place: self._holds_trained(row[place], reference))
        if place is None:
            raise self._out_of_reach()
        return self._told(next(one for one in self.tried if one.mixture == row[place]))

    def _mixtures(self) -> list[Mixture]:
        """From the smallest to all layers at the most bits."""
        choices = [*map(self._choices, self.rows)]
        mixtures = front(choices)
        widest = tuple(max(some, key=lambda choice: choice.size) for some in choices)
        return mixtures + [widest] * (mixtures[-1] != widest)

    def _choices(self, row: Row) -> list[Choice]:
        """The widths that a layer may have, with the bytes of its weights."""
        widths = [width for width in self.keep.widths if label(width) in row.effects]
        return [Choice(width, row.elements * bits_of(width) / 8, row.effects[label(width)]) for width in widths]

    def _layers(self, mixture: Mixture) -> dict[str, int | str | Codebook]:
        return {row.layer: choice.width for row, choice in zip(self.rows, mixture, strict=True)}

    def _guess(self, mixtures: Sequence[Mixture], reference: Scores | None) -> int | None:
        """The place of the smallest that holds untrained; None where none does."""
        with self.ctx.progress("mixtures, untrained", len(mixtures).bit_length()) as advance:

            def holds(place: int) -> bool:
                model = self.untrained(self._layers(mixtures[place]))
                model.module.to(self.ctx.device)
                estimate = self._estimate(model, reference)
                self.guesses += [Tried(mixtures[place], self.model, estimate)] if estimate else []
                advance(1)
                return estimate is not None and self.keep.holds(estimate)

            return smallest(len(mixtures), holds)

    def _holds_trained(self, mixture: Mixture, reference: Scores | None) -> bool:
        if self.ctx.world.any(self.ctx.interrupted()):
            raise Interruption("stopped between two trainings")
        reports, warnings = dict[str, JsonValue](), list[str]()
        number = len(self.tried) + len(self.unscored)
        directory = self.ctx.directory / f"mixture-{number}"
        directory.mkdir(parents=True, exist_ok=True)
        sinks: dict[str, Any] = {"report": reports.__setitem__, "warn": warnings.append, "log": UNHEARD}
        set_seed(self.ctx.seed)  # as where the stage is told these widths
        model = self.trained(self._layers(mixture), replace(self.ctx, directory=directory, **sinks))
        estimate = self._estimate(model, reference)
        tried = Tried(mixture, model, estimate, reports, warnings) if estimate else None
        text = figures(self.keep, tried) if tried else self.keep.unscored
        self.ctx.log.info("training %d of at most %d: %s", number + 1, self.keep.trainings, text)
        if tried is None:
            self.unscored.append(mixture)
            return False
        self.tried.append(tried)
        return self.keep.holds(tried.estimate)

    def _estimate(self, model: TorchModel, reference: Scores | None) -> Estimate | None:
        """What became of the score, as the first of the processes has it; None where there is none.

        The others wait for it, so answers that are not finite must not end the first alone.
        """
        estimate = None
        if reference is not None:
            with suppress(NotFinite):
                estimate = self.keep.estimate(scores_of(model, self.ctx), reference, self.ctx.seed)
        figure = self.ctx.world.broadcast(estimate.model_dump() if estimate else None)
        return Estimate(**figure) if figure else None

    def _told(self, chosen: Tried[TorchModel]) -> TorchModel:
        """The network, once everything is reported."""
        layers = self._layers(chosen.mixture)
        widths: dict[str, JsonValue] = {n: w if isinstance(w, int) else label(w) for n, w in layers.items()}
        own: dict[str, JsonValue] = {n: w.model_dump() if isinstance(w, Codebook) else w for n, w in layers.items()}
        self.ctx.report("sensitivity", {"layers": [asdict(row) for row in self.rows]})
        more: dict[str, JsonValue] = {"settings": {"layers": own}, "untrained": [*map(entry, self.guesses)]}
        more |= {"unscored": [*map(of_mixture, self.unscored)]} if self.unscored else {}
        tell(self.keep, chosen, self.tried, self.ctx, examples=len(self.ctx.validation), widths=widths, **more)
        return chosen.model

    def _out_of_reach(self) -> StageError:
        problem = f"no mixture of {', '.join(map(label, self.keep.widths))} keeps {self.keep.text} on "
        problem += f"{len(self.ctx.validation):,} validation examples once trained"
        if not self.tried:
            return StageError(f"{problem}: all have {self.keep.unscored}", fix="Give wider `widths` under `keep`")
        nearest = max(self.tried, key=lambda one: self.keep.nearness(one.estimate))
        number = len(self.tried) + len(self.unscored)
        problem += f"; of {number} trainings the nearest has {figures(self.keep, nearest)}"
        return StageError(problem, fix="Ask for that, give more `epochs`, or wider `widths` under `keep`")


def to_train(mixtures: Sequence[Mixture], guess: int | None, most: int) -> list[Mixture]:
    """Those that are worth a training, from the smallest to the widest.

    Training makes smaller ones hold than hold without: they are taken up to the first that does, spread over the bytes,
    and then the widest.

    Args:
        mixtures: from the smallest to the widest.
        guess: the place of the first that holds untrained; None where none does.
        most: how many, 3 or more.
    """
    last = len(mixtures) - 1
    if guess is None or guess == last:
        return _spread(mixtures, most)
    return [*_spread(mixtures[: guess + 1], most - 1), mixtures[last]]


def _spread(mixtures: Sequence[Mixture], most: int) -> list[Mixture]:
    """As many of a row, with both ends, whose bytes rise by equal steps as far as there are such."""
    sizes = np.array([sum(choice.size for choice in mixture) for mixture in mixtures])
    if len(mixtures) <= most:
        return [*mixtures]
    places = {int(np.abs(sizes - size).argmin()) for size in np.linspace(sizes[0], sizes[-1], most)}
    return [mixtures[place] for place in sorted(places)]
