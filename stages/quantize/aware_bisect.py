"""Bisection of a network that was trained with integers: which of its layers lose most by them."""

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from pydantic import Field, JsonValue

from pipeline.base.formatting import few
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Interruption
from pipeline.forms.text.remapped import split
from pipeline.measure.accuracy import mean_score
from pipeline.measure.sensitivity.divergence import divergence
from pipeline.model import TorchModel
from pipeline.stage import Stage, quantizing
from stages.quantize.aware import AwareQuantization
from stages.quantize.mixed.culprits import Culprit, culprits, expect_validation
from stages.quantize.training.mixed.partly import Partly, answers
from stages.quantize.training.mixed.parts import parts_of
from stages.quantize.training.module import part_of


class AwareBisection(Stage):
    """The model that came in, and the layers whose integers move the answers of a trained network most.

    `shrink bisect RUN` does that for `quantize.aware` in a run. Groups of layers compute in fp32 with the weights that
    were trained, and are halved where that brings the answers nearer to those of all layers in fp32.

    Example:
        - {use: quantize.aware, bits: 4}
        - {use: quantize.aware_bisect}

    Reference: Andreas Zeller and Ralf Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE
    Transactions on Software Engineering 28, 2002.
    """

    only_measures: ClassVar[bool] = True

    share: float = Field(0.1, gt=0, lt=1, description="of what integers move, that a layer accounts for to be named")
    examples: int = Field(256, ge=1, description="validation examples at most, on which answers are compared")
    batch_size: int = Field(64, ge=1, description="validation examples a batch")

    def chooses_by_answers(self) -> bool:
        """It looks for what changes them."""
        return True

    def check(self, before: Sequence[Stage], preview: Preview) -> Sequence[str]:
        """Refuse what was not trained with integers, and an empty validation split."""
        if not isinstance(quantizing(before), AwareQuantization):
            raise ConfigError("nothing before it is trained with integers", fix="Put it behind quantize.aware")
        expect_validation(preview)
        return ()

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The model itself. Raises StageError where it was not trained with integers."""
        part = part_of(model.module)
        weights = {one.name: [*one.weights] for one in parts_of(split(model.module)[0], part.plan)}
        few_of_it = ctx.validation.select(list(range(min(len(ctx.validation), self.examples))))
        inputs = [batch.inputs for batch in few_of_it.loader(self.batch_size)]
        reference = answers(model, (), inputs, ctx.output)
        with ctx.progress("groups of layers", 2 * len(weights).bit_length() + 1) as advance:

            def loss(spared: Collection[str] = ()) -> float:
                if ctx.interrupted():
                    raise Interruption("stopped between two groups of layers")
                rest = [layer for layer in weights if layer not in spared]
                pairs = zip(reference, answers(model, rest, inputs, ctx.output), strict=True)
                advance(1)
                return divergence(pairs, ctx.labelling if ctx.logits else None)

            whole = loss()
            some = culprits([*weights], whole, loss, self.share)
        integers = mean_score(model, few_of_it, decode=ctx.decode, score=ctx.score)
        with part.replaced(Partly(part, ())):
            floats = mean_score(model, few_of_it, decode=ctx.decode, score=ctx.score)
        _tell(ctx, some, whole, weights, {"integers": integers, "fp32": floats})
        return model


def _tell(
    ctx: Context, some: Sequence[Culprit], whole: float, weights: Mapping[str, list[str]], scores: dict[str, float]
) -> None:
    layers: list[JsonValue] = [
        {"layer": culprit.part, "nodes": [*weights[culprit.part]], "share": culprit.gain / whole} for culprit in some
    ]
    figures = f"{scores['fp32']:.4f} in fp32, {scores['integers']:.4f} in integers"
    if scores["fp32"] > scores["integers"]:
        remedy = f"with the trained weights in fp32 it comes back (score {figures}): give them more bits in `layers`"
    else:
        remedy = f"the trained weights in fp32 score no better ({figures}), so that more bits alone gain nothing"
    report: dict[str, JsonValue] = {"divergence": whole, "layers": layers, "of": len(weights)}
    ctx.report("bisection", {**report, "scores": {**scores}, "remedy": remedy})
    if whole == 0:
        ctx.log.info("nothing was lost: the answers in integers are those in fp32")
        return
    names = few([f"`{culprit.part}` ({culprit.gain / whole:.0%})" for culprit in some])
    ctx.log.info("what integers move comes from %s; %s", names or "many layers, each a little", remedy)
