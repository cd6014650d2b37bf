"""How much the answers change where one group of channels alone becomes narrower, and an allocation by that."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.context import Context
from pipeline.measure.sensitivity.divergence import divergence
from pipeline.model import TorchModel, call
from stages.prune.allocation.search import removed
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled

RATIOS = (0.25, 0.5, 0.75)
EXAMPLES = 128
BATCH = 64
LEAST = 1e-12
"""Of a group without effect: its channels still leave one after the other."""


class Answers:
    """What a module answers to calibration examples, beside which others are compared.

    Args:
        module: the reference; not changed.
        ctx: its calibration data are what answers are compared on.
        examples: of them at most.
    """

    def __init__(self, module: nn.Module, ctx: Context, examples: int) -> None:
        split = ctx.calibration.select(list(range(min(len(ctx.calibration), examples))))
        self.ctx = ctx
        self.inputs = [batch.inputs for batch in split.loader(BATCH)]  # once, for they may be others each time
        self.before = self._of(module)

    def change(self, module: nn.Module) -> float:
        """The mean divergence of what another module answers; see `pipeline.measure.sensitivity.divergence`."""
        labelling = self.ctx.labelling if self.ctx.logits else None
        return divergence(zip(self.before, self._of(module), strict=True), labelling)

    def _of(self, module: nn.Module) -> list[Any]:
        module.eval()
        with torch.no_grad():
            outputs = [call(module, inputs) for inputs in self.inputs]
        values = [_counted(output, self.ctx.output) for output in outputs]
        return [(one.float() if one.dtype == torch.bfloat16 else one).numpy() for one in values]  # NumPy has no bf16


def effects(
    model: TorchModel, groups: Sequence[Coupled], ratios: Sequence[float], ctx: Context, examples: int = EXAMPLES
) -> Iterator[list[float]]:
    """For each group the mean divergence of the answers without its least important channels, at each ratio.

    All other groups stay whole.

    Args:
        model: not changed.
        groups: with scores.
        ratios: shares of the channels to remove, 0 to 1; one stays at least.
        ctx: its calibration data are what answers are compared on.
        examples: of them at most.
    """
    answers = Answers(model.module, ctx, examples)
    for group in groups:
        row = []
        for ratio in ratios:
            count = max(round(len(group.scores) * (1 - ratio)), 1)
            smaller = engine.trimmed(model.module, {group.root: removed(group, count)}, [group])
            row.append(answers.change(smaller))
        yield row


def by_effect(groups: Sequence[Coupled], rows: Sequence[Sequence[float]], ratios: Sequence[float]) -> list[Coupled]:
    """The groups with scores of which equal ones do as much to the answers, whatever the group.

    A channel's score is the effect of removing it with all that matter less in its group, between the ratios that were
    measured by a straight line of logarithms. So channels ranked together leave each group as far as it bears it.
    Scores are in double precision: where one ratio does no more than another they differ by less than a millionth.

    Args:
        groups: with scores, of which the order stays.
        rows: of `effects`, a number for each of the ratios.
        ratios: ascending.
    """
    rescored = []
    for group, row in zip(groups, rows, strict=True):
        size = len(group.scores)
        order = torch.argsort(torch.argsort(group.scores, stable=True))
        rising = np.log(np.maximum.accumulate(np.maximum(row, LEAST)))
        shares = (order.numpy() + 1) / size
        rescored.append(replace(group, scores=torch.from_numpy(np.exp(_between(shares, ratios, rising)))))
    return rescored


def _between(shares: Any, ratios: Sequence[float], rising: Any) -> Any:
    """Logarithms at shares: between the ratios on straight lines, beyond them on the first and the last of these."""
    values = np.interp(shares, ratios, rising)
    if len(ratios) < 2:
        return values + 1e-3 * shares
    slopes = np.maximum(np.diff(rising) / np.diff(ratios), 1e-3)
    values = np.where(shares < ratios[0], rising[0] - slopes[0] * (ratios[0] - shares), values)
    return np.where(shares > ratios[-1], rising[-1] + slopes[-1] * (shares - ratios[-1]), values) + 1e-6 * shares


def _counted(outputs: dict[str, Tensor], name: str | None) -> Tensor:
    return outputs[name] if name in outputs else next(iter(outputs.values()))
