"""Bisection: which layers cost the accuracy that quantization loses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from pydantic import Field, JsonValue, ValidationError

from pipeline.base.code.extras import expect_extra
from pipeline.base.formatting import few
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Interruption
from pipeline.measure.sensitivity.divergence import divergence
from pipeline.model import OnnxModel
from pipeline.stage import Stage
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.half import HalfPrecision
from stages.quantize.mixed.culprits import Culprit, culprits, expect_validation
from stages.quantize.mixed.keeping import UNHEARD
from stages.quantize.mixed.measuring import counted_output
from stages.quantize.optimum import OptimumQuantization
from stages.quantize.quantizing.assigned import Assigned, Trial
from stages.quantize.static import StaticQuantization
from stages.quantize.weights import WeightQuantization

Method = Literal["static", "dynamic", "weights", "half", "optimum"]
Quantization = StaticQuantization | DynamicQuantization | WeightQuantization | HalfPrecision | OptimumQuantization
METHODS: dict[Method, type[Quantization]] = {
    "static": StaticQuantization,
    "dynamic": DynamicQuantization,
    "weights": WeightQuantization,
    "half": HalfPrecision,
    "optimum": OptimumQuantization,
}

Done = Callable[[Mapping[str, Any]], set[str]]


class QuantizationBisection(Stage):
    """The model that came in, and the layers that cost the accuracy where it is quantized in one way.

    `shrink bisect RUN` does that for a stage of a run. Groups of layers are left as they came, and halved where that
    brings the answers back, so that one bad layer among n takes about 2 log2(n) files.

    Example:
        - {use: quantize.bisect, method: static, settings: {bits: 4}}

    Reference: Andreas Zeller and Ralf Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE
    Transactions on Software Engineering 28, 2002.
    """

    only_measures: ClassVar[bool] = True

    method: Literal["static", "dynamic", "weights", "half", "optimum"] = Field(
        "static", description="which stage of quantize"
    )
    settings: dict[str, JsonValue] = Field({}, description="its settings")
    share: float = Field(0.1, gt=0, lt=1, description="of what is lost, that a layer accounts for at least to be named")
    examples: int = Field(256, ge=1, description="validation examples at most, on which answers are compared")
    batch_size: int = Field(64, ge=1, description="validation examples a batch")

    def chooses_by_answers(self) -> bool:
        """It looks for what changes them."""
        return True

    def check(self, before: Sequence[Stage], preview: Preview) -> Sequence[str]:
        """Refuse settings that the stage refuses, `keep`, whose mixture is another each time, and empty splits."""
        stage = self._stage()
        if stage.extra:
            expect_extra(stage.extra, f"quantize.{self.method}")
        if stage.keep:
            fix = "Take what stands under `settings` in its report `keep`"
            raise ConfigError("`keep` chooses another mixture where layers are left out", fix=fix)
        expect_validation(preview)
        return list(stage.check(before, preview))

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The model itself. Raises StageError where it cannot be quantized so."""
        stage = self._stage()
        units = stage.measured([], model, ctx, examples=1)
        ctx.directory.mkdir(parents=True, exist_ok=True)
        with (
            TemporaryDirectory(dir=ctx.directory, prefix="bisect-") as folder,
            stage.trials(model, ctx) as trial,
            ctx.progress("files", 2 * len(units).bit_length() + 1) as advance,
        ):
            inner = replace(ctx, directory=Path(folder), log=UNHEARD, warn=_unheard)
            answers = Answers(self, model, inner, trial, stage.done)
            whole = answers.loss([])
            nodes = {row.layer: row.nodes for row in units if answers.quantized.issuperset(row.nodes)}
            advance(1)

            def loss(spared: frozenset[str]) -> float:
                advance(1)
                return answers.loss([name for layer in nodes if layer in spared for name in nodes[layer]])

            some = culprits([*nodes], whole, loss, self.share)
        named = {one.part: stage.spared(model, nodes[one.part]) for one in some}
        self._tell(ctx, stage.spares_in, some, named, whole, len(nodes))
        return model

    def _stage(self) -> Quantization:
        try:
            return METHODS[self.method].model_validate(self.settings)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"][:1]))
            expected = f"those of quantize.{self.method}"
            raise ConfigError(f"`settings` has `{where}`: {first['msg']}", expected=expected) from error

    def _tell(
        self, ctx: Context, setting: str, some: Sequence[Culprit], named: dict[str, list[str]], whole: float, count: int
    ) -> None:
        layers: list[JsonValue] = [
            {"layer": culprit.part, "nodes": [*named[culprit.part]], "share": culprit.gain / whole} for culprit in some
        ]
        nodes = ", ".join(name for names in named.values() for name in names)
        remedy = f"`{setting}: [{nodes}]` keeps it" if some else ""
        ctx.report("bisection", {"divergence": whole, "layers": layers, "of": count, "remedy": remedy})
        if some:
            parts = few([f"`{culprit.part}` ({culprit.gain / whole:.0%})" for culprit in some])
            ctx.log.info("what is lost comes from %s; %s", parts, remedy)
        elif whole == 0:
            ctx.log.info("nothing was lost: the answers are those of the model that came in")
        else:
            text = "no layer accounts for %s of what is lost: it comes from many, or from operators without weights"
            ctx.log.info(text, f"{self.share:.0%}")


class Answers:
    """What files with some nodes spared answer, beside the model that came in.

    Args:
        settings: examples and batch.
        model: that came in.
        ctx: whose folder gets the files.
        trial: makes them.
        done: the names of the nodes that were quantized, by what was reported.
    """

    def __init__(
        self, settings: QuantizationBisection, model: OnnxModel, ctx: Context, trial: Trial, done: Done
    ) -> None:
        self.ctx, self.trial, self.done, self.count = ctx, trial, done, 0
        self.output, self.quantized = counted_output(model, ctx), set[str]()
        split = ctx.validation
        few_of_it = split.select(list(range(min(len(split), settings.examples))))
        self.inputs = [batch.inputs for batch in few_of_it.loader(settings.batch_size)]
        self.reference = self._of(model)

    def loss(self, spared: Sequence[str]) -> float:
        """The divergence from the answers of the model that came in, where some nodes are as they were."""
        if self.ctx.interrupted():
            raise Interruption("stopped between two files")
        self.count += 1
        reports: dict[str, Any] = {}
        inner = replace(self.ctx, directory=self.ctx.directory / str(self.count), report=reports.__setitem__)
        answers = self._of(self.trial(inner, Assigned(spared)))
        self.quantized = self.quantized or self.done(reports)
        labelling = self.ctx.labelling if self.ctx.logits else None
        return divergence(zip(self.reference, answers, strict=True), labelling)

    def _of(self, model: OnnxModel) -> list[Any]:
        answers = [model.predict(inputs)[self.output].numpy() for inputs in self.inputs]
        model.close()
        return answers


def _unheard(*_: Any) -> None:
    pass
