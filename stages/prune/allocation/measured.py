"""Targets that are measured on the file to deploy: its bytes, or its latency in ONNX Runtime on this machine."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

from torch import nn

from pipeline.base.estimate import Estimate
from pipeline.base.files import scratch
from pipeline.context import Context
from pipeline.deploy import deploy
from pipeline.errors import Interruption, StageError
from pipeline.measure.kernels.kernels import latency_ratio
from pipeline.measure.size import size_bytes
from pipeline.model import OnnxModel, TorchModel
from stages.prune.allocation.costs import Cost
from stages.prune.allocation.greedy import fastest
from stages.prune.allocation.latencies import latencies_of
from stages.prune.allocation.search import Counts, Scope, kept, lost, solve
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled
from stages.prune.reshape import USE, difference

TRIES = 8
CLOSE, AIMED = 0.97, 0.99
"""Of the budget: what is that near is not tried again, and what the next try is for."""
STOPPED = "stopped in the search for widths"


class Prediction(NamedTuple):
    """What is known before a file is made: its share by counts, and the counts for a share, else the least."""

    share: Callable[[Counts], float]
    counts: Callable[[float], Counts]


@dataclass(frozen=True)
class Measured:
    """A share of what the reference costs as a file.

    What was measured and solved for is kept in the folder of the stage, so that a run that goes on finds the same, and
    it is the first process that measures for all.

    Args:
        unit: size, or latency of one example on one thread.
        reference: the model whose file counts 1, as it came in.
        plain: the same as it is cut, with plain weights and layers.
        ctx: of the stage.
        seconds: of layers at some widths, as far as they were measured.
    """

    unit: Literal["size", "latency"]
    reference: TorchModel
    plain: TorchModel
    ctx: Context
    seconds: dict[Any, float] = field(default_factory=dict)

    def of(self, module: nn.Module) -> float:
        """The ratio of a module's file to the reference's; see `estimate`."""
        return self.estimate(module).value

    def whole(self, module: nn.Module) -> float:
        """What all of it is: the reference, whatever the module."""
        return 1.0

    def estimate(self, module: nn.Module) -> Estimate:
        """The same with its interval; measured once for a module with such widths.

        Raises:
            StageError: an inference takes too long for a ratio, or the model is deployed as several files.
        """
        return Estimate(**self._shared(lambda: self._estimate(module).model_dump()))

    def solved(
        self, module: nn.Module, groups: Sequence[Coupled], budget: float, scope: Scope, round_to: int
    ) -> tuple[float, Counts]:
        """The share of channels that leave, and the counts of the largest module found whose file is within the budget.

        It is predicted from the layers by themselves, solved for, and measured; the next prediction aims between those
        that were too large and too small, by how far they were off.

        Raises:
            StageError: the file stays above it however much is removed; it says what is attainable.
            Interruption: a stop was asked for.
        """
        key = f"counts for {budget} of {json.dumps(engine.widths(module))} in {[group.root for group in groups]}"
        make = partial(self._solved, module, groups, budget, scope, round_to)
        counts = tuple(self._shared(lambda: self._kept(key, make)))
        return 1 - sum(counts) / sum(len(group.scores) for group in groups), counts

    def _solved(
        self, module: nn.Module, groups: Sequence[Coupled], budget: float, scope: Scope, round_to: int
    ) -> Counts:
        predicted = self._predicted(module, groups, scope, round_to)
        least = predicted.counts(0.0)
        shares = {least: self._share(module, groups, least)}
        if shares[least] > budget:
            problem = f"{shares[least]:.3f} is what the smallest one has"
            raise StageError(problem, fix=f"Set {self.unit} to more than that, lower round_to or shorten ignore")
        below, above = (predicted.share(least), shares[least]), (1.0, self._estimate(module).value)
        with self.ctx.progress("widths", TRIES) as advance:
            for _ in range(TRIES):
                aims = [_between(below, above, AIMED * budget), (below[0] + above[0]) / 2]
                new = [(aim, counts) for aim in aims if (counts := predicted.counts(aim)) not in shares]
                if not new:
                    break
                aim, counts = new[0]
                share = shares[counts] = self._share(module, groups, counts)
                advance(1, f"{share:.3f} of the {self.unit}")
                if CLOSE * budget <= share <= budget:
                    break
                below, above = (below, (aim, share)) if share > budget else ((aim, share), above)
        return max((share, counts) for counts, share in shares.items() if share <= budget)[1]

    def _share(self, module: nn.Module, groups: Sequence[Coupled], counts: Counts) -> float:
        if self.ctx.interrupted():
            raise Interruption(STOPPED)
        return self._estimate(engine.trimmed(module, lost(groups, counts), groups)).value

    def _estimate(self, module: nn.Module) -> Estimate:
        """What `estimate` gives, by this process."""
        widths = json.dumps(engine.widths(module))
        if self.plain is self.reference and widths == json.dumps(engine.widths(self.reference.module)):
            return Estimate(value=1.0, low=1.0, high=1.0)
        return Estimate(**self._kept(f"share of {widths}", lambda: self._ratio(module).model_dump()))

    def _ratio(self, module: nn.Module) -> Estimate:
        model = self.plain.edited(USE, layers=difference(self.plain.module, module))
        model.module.load_state_dict(module.state_dict())
        before = self.ctx.deployed(self.reference)
        if not isinstance(before, OnnxModel):
            raise StageError("a model of several files is not measured by itself", fix="Set macs instead")
        with TemporaryDirectory(dir=scratch()) as folder:
            after = deploy(model, Path(folder) / "model.onnx")
            if self.unit == "size":
                share = size_bytes(after) / size_bytes(before)
                return Estimate(value=share, low=share, high=share)
            ratio = latency_ratio(before, after)
        if ratio is None:
            raise StageError("one inference takes too long to be timed in turns", fix="Set macs instead of latency")
        return ratio

    def _predicted(self, module: nn.Module, groups: Sequence[Coupled], scope: Scope, round_to: int) -> Prediction:
        whole, least = tuple(len(group.scores) for group in groups), kept(groups, 1.0, scope, round_to)
        if self.unit == "latency":
            latencies = latencies_of(module, self.reference.example, groups, self.seconds)
            full = latencies.of(whole)
            return Prediction(
                lambda counts: latencies.of(counts) / full,
                lambda aim: fastest(groups, latencies, aim * full, scope, round_to)[0],
            )
        cost = Cost("params", self.reference.example, frozenset()).by_counts(module, groups, least)

        def largest(aim: float) -> Counts:
            target = aim * cost(whole)
            return solve(groups, cost, target, scope, round_to)[1] if cost(least) <= target else least

        return Prediction(lambda counts: cost(counts) / cost(whole), largest)

    def _kept(self, key: str, make: Callable[[], Any]) -> Any:
        """What was made for a key before, by this process or by one that was stopped; else it is made."""
        file = self.ctx.directory / f"{self.unit}.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        if key in known:
            return known[key]
        value = make()
        known = (json.loads(file.read_text()) if file.is_file() else {}) | {key: value}
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_suffix(".part")
        whole.write_text(json.dumps(known))
        whole.replace(file)
        return value

    def _shared(self, make: Callable[[], Any]) -> Any:
        """What the first process makes, as JSON, in all of them. Raises Interruption in all where it was stopped."""
        world = self.ctx.world
        if not world.main:
            if (value := world.broadcast()) is None:
                raise Interruption(STOPPED)
            return value
        try:
            value = make()
        except Interruption:
            world.broadcast(None)
            raise
        return world.broadcast(value)


def _between(below: tuple[float, float], above: tuple[float, float], share: float) -> float:
    """What to aim at for a share, on the straight line through two (aim, share)."""
    return below[0] + (above[0] - below[0]) * (share - below[1]) / max(above[1] - below[1], 1e-9)
