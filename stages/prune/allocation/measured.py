"""Targets that are measured on the file to deploy: its bytes, or its latency in ONNX Runtime on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from pipeline.errors import StageError
from pipeline.measure.kernels.kernels import latency_ratio
from pipeline.measure.size import size_bytes
from pipeline.model import OnnxModel, TorchModel
from pipeline.stage import Context
from stages.prune.allocation.costs import Cost
from stages.prune.allocation.greedy import fastest
from stages.prune.allocation.latencies import latencies_of
from stages.prune.allocation.search import Counts, Scope, kept, lost, solve
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled
from stages.prune.reshape import USE, difference

TRIES = 6
CLOSE = 0.97
"""Of the budget: what is that near is not tried again."""


@dataclass(frozen=True)
class Measured:
    """A share of what the reference costs as a file.

    Args:
        unit: size, or latency of one example on one thread.
        reference: the model whose file counts 1.
        ctx: of the stage.
        seconds: of layers at some widths, as far as they were measured.
    """

    unit: Literal["size", "latency"]
    reference: TorchModel
    ctx: Context
    seconds: dict[Any, float] = field(default_factory=dict)

    def of(self, module: nn.Module) -> float:
        """The ratio of a module's file to the reference's; 1 for the reference's own.

        Raises:
            StageError: an inference takes too long for a ratio, or the model is deployed as several files.
        """
        if module is self.reference.module:
            return 1.0
        model = self.reference.edited(USE, layers=difference(self.reference.module, module))
        model.module.load_state_dict(module.state_dict())
        one, other = self.ctx.deployed(self.reference), self.ctx.deployed(model)
        if self.unit == "size":
            return size_bytes(other) / size_bytes(one)
        if not isinstance(one, OnnxModel) or not isinstance(other, OnnxModel):
            raise StageError("a model of several files is not timed", fix="Set macs instead of latency")
        ratio = latency_ratio(one, other)
        if ratio is None:
            raise StageError("one inference takes too long to be timed in turns", fix="Set macs instead of latency")
        return ratio.value

    def solved(
        self, module: nn.Module, groups: Sequence[Coupled], budget: float, scope: Scope, round_to: int
    ) -> tuple[float, Counts]:
        """The share of channels that leave, and the counts of the largest module found whose file is within the budget.

        It is predicted from the layers by themselves, solved for, and measured; the next prediction aims between those
        that were too large and too small, by how far they were off.

        Raises:
            StageError: the file stays above it however much is removed; it says what is attainable.
        """
        propose = self._proposals(module, groups, scope, round_to)
        above, below = (1.0, self.of(module)), (0.0, 0.0)
        aim, shares = budget / above[1], dict[Counts, float]()
        for _ in range(TRIES):
            counts = propose(aim)
            if counts in shares:
                break
            share = shares[counts] = self._share(module, groups, counts)
            if CLOSE * budget <= share <= budget:
                break
            above, below = ((aim, share), below) if share > budget else (above, (aim, share))
            aim = below[0] + (above[0] - below[0]) * (budget - below[1]) / (above[1] - below[1])
        least = min(shares.values())
        if least > budget:
            problem = f"{least:.3f} is what the smallest one found has"
            raise StageError(problem, fix=f"Set {self.unit} to more than that, lower round_to or shorten ignore")
        counts = max((share, counts) for counts, share in shares.items() if share <= budget)[1]
        return 1 - sum(counts) / sum(len(group.scores) for group in groups), counts

    def _share(self, module: nn.Module, groups: Sequence[Coupled], counts: Counts) -> float:
        return self.of(engine.trimmed(module, lost(groups, counts), groups))

    def _proposals(
        self, module: nn.Module, groups: Sequence[Coupled], scope: Scope, round_to: int
    ) -> Callable[[float], Counts]:
        """What gives the counts whose predicted cost is a share of the module's; the least where none are so low."""
        whole, least = tuple(len(group.scores) for group in groups), kept(groups, 1.0, scope, round_to)
        if self.unit == "latency":
            latencies = latencies_of(module, self.reference.example, groups, self.seconds)
            full = latencies.of(whole)
            return lambda aim: fastest(groups, latencies, aim * full, scope, round_to)[0]
        cost = Cost("params", self.reference.example, frozenset()).by_counts(module, groups, least)

        def largest(aim: float) -> Counts:
            target = aim * cost(whole)
            return solve(groups, cost, target, scope, round_to)[1] if cost(least) <= target else least

        return largest
