"""What the quantizing stages share that can keep a score: the setting, the search, and what looks at layers."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field, JsonValue

from pipeline.base.data.strict import Strict
from pipeline.model import OnnxModel
from pipeline.stage import Context
from stages.quantize.mixed.effects import Activations
from stages.quantize.mixed.keep import KEEP, Keep
from stages.quantize.mixed.keeping import Keeping
from stages.quantize.mixed.measuring import Sensitivity
from stages.quantize.quantizing.assigned import Assigned, Trial
from stages.quantize.rounding.settings import schemes_of


class KeepsScore(Strict):
    """A stage that quantizes as its settings say, or as `keep` finds."""

    reads: ClassVar[Activations]
    """How its layers round what they read."""
    keep: Keep | None = Field(None, description=KEEP)

    @abstractmethod
    def weighted(self) -> tuple[str, ...]:
        """Those of its operators whose weights take fewer bits."""

    @abstractmethod
    def quantized(self, model: OnnxModel, ctx: Context, assigned: Assigned | None = None) -> OnnxModel:
        """The quantized file, as the settings say or, where that is given, as a search assigns."""

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The quantized file.

        Raises:
            StageError: no node was quantized, a node's name is unknown, or no mixture of widths keeps the score.
        """
        if not self.keep:
            return self.quantized(model, ctx)
        own = self.model_dump(include=self._common())
        own |= {"operators": self.weighted(), "examples": self.keep.examples}
        rows = Sensitivity(schemes_of(self.keep.integers), self.reads, **own).of(model, ctx)
        with self.trials(model, ctx) as trial:
            return Keeping(self.keep, rows, model, ctx, trial).smallest()

    @contextmanager
    def trials(self, model: OnnxModel, ctx: Context) -> Iterator[Trial]:
        """What quantizes a model with other settings, or without some nodes."""

        def trial(inner: Context, assigned: Assigned = Assigned(), **settings: Any) -> OnnxModel:  # noqa: B008
            return self.model_copy(update=settings).quantized(model, inner, assigned)

        yield trial

    def chooses_by_answers(self) -> bool:
        """Where it keeps a score, which is then measured."""
        return self.keep is not None

    def sensitivity(self) -> list[dict[str, JsonValue]]:
        """Of its layers to fewer bits, with what they read rounded as it does."""
        operators: list[JsonValue] = [*self.weighted()]
        own = self.model_dump(mode="json", include=self._common())
        entry: dict[str, JsonValue] = {"use": "quantize.sensitivity", "activations": self.reads, "operators": operators}
        return [entry | own] if operators else []

    def bisection(self) -> list[dict[str, JsonValue]]:
        """Which layers cost the accuracy."""
        method, settings = type(self).__module__.rpartition(".")[2], self.model_dump(mode="json", exclude_unset=True)
        return [{"use": "quantize.bisect", "method": method, "settings": settings}]

    def _common(self) -> set[str]:
        """The settings that `quantize.sensitivity` has too."""
        return {"per_channel", "reduce_range", "exclude"} & {*type(self).model_fields}
