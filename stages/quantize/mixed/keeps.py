"""What the quantizing stages share that can keep a score: the setting, the search, and what looks at layers."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field, JsonValue

from pipeline.base.data.strict import Strict
from pipeline.context import Context, Preview
from pipeline.model import OnnxModel
from stages.quantize.mixed.effects import Activations
from stages.quantize.mixed.keep import KEEP, Keep, Offer, Width
from stages.quantize.mixed.keeping import Keeping
from stages.quantize.mixed.measuring import Row, Sensitivity
from stages.quantize.quantizing.assigned import Assigned, Trial
from stages.quantize.rounding.settings import label, schemes_of


class KeepsScore(Strict):
    """A stage that quantizes as its settings say, or as `keep` finds."""

    prepares: ClassVar[bool] = True
    """Whether what it quantizes is the graph that ONNX Runtime makes of the file, constants and norms folded."""

    remedy: ClassVar[str] = "Train with quantize.aware first, or give `operators` without those that cost most"
    """Where no mixture keeps the score."""

    spares_in: ClassVar[str] = "exclude"
    """The setting that leaves nodes as they are."""

    keep: Keep | None = Field(None, description=KEEP)

    @abstractmethod
    def reads(self) -> Activations:
        """How its layers round what they read."""

    @abstractmethod
    def weighted(self) -> tuple[str, ...]:
        """Those of its operators whose weights take fewer bits."""

    @abstractmethod
    def quantized(self, model: OnnxModel, ctx: Context, assigned: Assigned | None = None) -> OnnxModel:
        """The quantized file, as the settings say or, where that is given, as a search assigns."""

    def offer(self) -> Offer:
        """The widths that it has for layers."""
        return Offer()

    def done(self, reports: Mapping[str, Any]) -> set[str]:
        """The names of the nodes that it quantized, by what it reported."""
        return {entry["node"] for entry in reports.get("quantization", {}).get("layers", [])}

    def spared(self, model: OnnxModel, nodes: Collection[str]) -> list[str]:
        """What to name in `spares_in` so that layers of some nodes stay as they are."""
        return [*nodes]

    def kept(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The quantized file, as the settings say or as `keep` finds it.

        Raises:
            StageError: no node was quantized, a node's name is unknown, or no mixture of widths keeps the score.
        """
        if not self.keep:
            return self.quantized(model, ctx)
        rows = self.measured(self.keep.quantized(self.offer()), model, ctx, self.keep.examples)
        with self.trials(model, ctx) as trial:
            return Keeping(self, self.keep, rows, model, ctx, trial).smallest()

    def measured(
        self, widths: Sequence[Width], model: OnnxModel, ctx: Context, examples: int, **more: Any
    ) -> list[Row]:
        """Its layers, and how much the answers depend on each at each width."""
        own = self.model_dump(include=self._common()) | {"is_prepared": self.prepares, "examples": examples} | more
        return Sensitivity(schemes_of(widths), self.reads(), self.weighted(), **own).of(model, ctx)

    @contextmanager
    def trials(self, model: OnnxModel, ctx: Context) -> Iterator[Trial]:
        """What quantizes a model with other widths, or without some nodes."""

        def trial(inner: Context, assigned: Assigned) -> OnnxModel:
            return self.quantized(model, inner, assigned)

        yield trial

    def check_keep(self, preview: Preview) -> Iterator[str]:
        """Refuse what `keep` cannot do."""
        if self.keep:
            self.keep.check_widths(self.offer())
            yield from self.keep.check(self.model_dump(exclude_defaults=True), preview)

    def chooses_by_answers(self) -> bool:
        """Where it keeps a score, which is then measured."""
        return self.keep is not None

    def sensitivity(self) -> list[dict[str, JsonValue]]:
        """Of its layers to fewer bits, with what they read rounded as it does."""
        operators: list[JsonValue] = [*self.weighted()]
        own = self.model_dump(mode="json", include=self._common())
        widths: list[JsonValue] = [
            width if isinstance(width, int) else label(width) for width in self.offer().quantized
        ]
        entry: dict[str, JsonValue] = {"use": "quantize.sensitivity", "activations": self.reads(), "widths": widths}
        return [entry | {"operators": operators} | own] if operators else []

    def bisection(self) -> list[dict[str, JsonValue]]:
        """Which layers cost the accuracy."""
        method, settings = type(self).__module__.rpartition(".")[2], self.model_dump(mode="json", exclude_unset=True)
        return [{"use": "quantize.bisect", "method": method, "settings": settings}]

    def _common(self) -> set[str]:
        """The settings that `quantize.sensitivity` has too."""
        return {"per_channel", "reduce_range", "exclude"} & {*type(self).model_fields}
