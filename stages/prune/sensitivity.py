"""Sensitivity to pruning: how much the answers change where one layer at a time becomes narrower."""

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar

from annotated_types import Gt, Lt
from pydantic import Field, JsonValue

from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, StageError
from pipeline.forms.layers import aside
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage, quantizing
from stages.prune.allocation.effects import EXAMPLES, RATIOS, effects
from stages.prune.allocation.importance import Importance, with_importance
from stages.prune.channels import ChannelPruning
from stages.prune.settings import quantized

Share = Annotated[float, Gt(0), Lt(1)]


class PruningSensitivity(Stage):
    """The model that came in, and for each group of channels how much the answers change where that alone is pruned.

    Put it before `prune.channels` to see which layers want to stay wide; `scope: sensitivity` there allocates by it.
    `shrink sensitivity FILE` does that for any pipeline file that prunes first. The change is the KL divergence of
    logits at temperature 4, or of other answers the squared difference over their square, on calibration examples.

    Example:
        - {use: prune.sensitivity, ratios: [0.3, 0.6]}

    Reference: Hao Li et al., "Pruning Filters for Efficient ConvNets", 2017, arXiv:1608.08710, section 3.2, with the
    divergence of the answers in place of accuracy.
    """

    only_measures: ClassVar[bool] = True

    ratios: tuple[Share, ...] = Field(RATIOS, min_length=1, description="shares of the channels that are removed")
    importance: Importance = Field("magnitude", description="which channels go first, as in prune.channels")
    ignore: tuple[str, ...] = Field((), description="layers, or parts with layers, to leave out, as there")
    examples: int = Field(EXAMPLES, ge=1, description="calibration examples at most")

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse quantized weights."""
        if quantizing(before):
            raise quantized(type(self), ConfigError)
        yield from ()

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Refuse a model of which no layer can lose channels."""
        if isinstance(model, TorchModel):
            self._pruning().removable(model, ConfigError)
        yield from ()

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The model itself.

        Raises:
            StageError: nothing can be removed, a layer in `ignore` does not exist, or the model is quantized.
        """
        if aside(model.module):
            raise quantized(type(self), StageError)
        channels = self._pruning().removable(model, StageError, ctx.warn)
        groups = with_importance(channels.groups, channels.model, self.importance, ctx)
        ratios = sorted(self.ratios)
        layers: list[JsonValue] = []
        with ctx.progress("groups of channels", len(groups)) as advance:
            for group, row in zip(groups, effects(channels.model, groups, ratios, ctx, self.examples), strict=True):
                measured: dict[str, JsonValue] = {f"{r:g}": value for r, value in zip(ratios, row, strict=True)}
                size = len(group.scores) * group.groups
                entry: dict[str, JsonValue] = {"layer": group.root, "nodes": [*group.layers], "operator": "channels"}
                layers.append({**entry, "elements": size, "effects": measured})
                advance(1)
        ctx.report("sensitivity", {"ratios": [*ratios], "layers": layers})
        return model

    def _pruning(self) -> ChannelPruning:
        own = self.model_dump(include={"importance", "ignore"})
        return ChannelPruning.model_validate({"channels": 0.5, "round_to": 1, **own})
