"""Structured pruning: whole channels leave, and what is left is an ordinary, smaller network."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

from pydantic import Field, JsonValue
from torch import nn

from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note, ShrinkError, StageError, blame
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage
from stages.prune.allocation.costs import Cost, Unit
from stages.prune.allocation.effects import RATIOS, by_effect, effects
from stages.prune.allocation.importance import IMPORTANCE, READS_DATA, Importance, with_importance
from stages.prune.allocation.measured import Measured
from stages.prune.allocation.removable import Removable, Selection, removable
from stages.prune.allocation.search import ensure_within_reach, kept, lost, solve, told_widths
from stages.prune.attention.config import with_config
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled, Width
from stages.prune.coupling.telling import (
    WHOLE,
    costs,
    counted,
    far_below,
    layers,
    report_whole,
    unproven,
)
from stages.prune.reshape import USE, difference
from stages.prune.settings import SHARES, Narrowing, Teachers
from stages.prune.training.recovery import IDLE_STEPS
from stages.prune.weights import WeightPruning


class ChannelPruning(Narrowing, Stage):
    """A smaller ordinary network: the least important channels removed until at most the target remains.

    Choose it for convolutional and recurrent networks and feed-forward layers where time counts, before quantization,
    and give it `recovery`: without training afterwards most networks lose much of their accuracy.

    Reference:
        G. Fang, X. Ma, M. Song, M. Bi Mi, X. Wang, "DepGraph: Towards Any Structural Pruning", 2023, arXiv:2301.12900.
        What matters: see `stages.prune.allocation.importance`.
    """

    targets: ClassVar[tuple[str, ...]] = (*SHARES, "channels")

    channels: float | None = Field(
        None, gt=0, lt=1, description="share kept, at most, of the output channels of all layers that can lose some"
    )
    importance: Importance = Field("magnitude", description=IMPORTANCE)
    widths: tuple[Width, ...] = Field(
        ("feed_forward", "hidden"),
        min_length=1,
        description="which may shrink. hidden: what several layers give and several read, as a residual sum, and of "
        "recurrent layers; heads: of attention, as by prune.transformers; feed_forward: all others",
    )

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Warn of steps that train nothing in between; refuse quantized weights, and teachers that are not there."""
        yield from super().check(before, preview)
        if self.prepare and self.importance == "random":
            raise ConfigError("`importance: random` does not see what `prepare` trains", fix="Leave one of them out")
        if self.importance == "lamp" and self.scope == "uniform":
            yield "`importance: lamp` ranks channels of different layers; with `scope: uniform` it is as magnitude"
        if any(isinstance(stage, WeightPruning) and stage.pattern for stage in before):
            yield "where channels leave the pattern of prune.weights does not hold: put prune.weights behind this stage"
        if self.steps > 1 and not self.recovery and self.importance not in READS_DATA:
            yield IDLE_STEPS

    def outlook(self, model: Model, before: Sequence[Stage], preview: Preview) -> Model | None:
        """The layers stay, only narrower."""
        return model

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which layers can lose channels and which stay; refuse a model of which none, or not enough, can."""
        if not isinstance(model, TorchModel):
            return
        notes = list[str]()
        channels = self.removable(model, ConfigError, notes.append)
        yield from notes
        yield from self.limits(channels, before)

    def limits(self, channels: Removable, before: Sequence[Stage]) -> Iterable[str]:
        """What leaves of what can be removed, and what stays; refuse a target that is out of reach."""
        groups = self._narrowable(channels.groups, ConfigError)
        narrow = [layer for layer in layers(channels.groups) if layer not in layers(groups)]
        yield Note(f"channels leave {counted(layers(groups))}")
        for names, why in ((narrow, self._too_narrow), (channels.whole, WHOLE)):
            if names:
                yield Note(f"all channels stay of {counted(names)}: {why}")
        # Behind a stage that narrows the target is a share of a cost that is not known yet.
        if not self._is_measured and not any(stage.narrows for stage in before):
            yield from self._foreseen(channels)
        yield from unproven(channels.model)

    def _foreseen(self, channels: Removable) -> Iterable[Note]:
        """The widths, where weights do not tell them. Raise StageError where the target is out of reach."""
        module, groups = channels.model.module, channels.groups
        cost = self._counted(channels.model, groups)
        full, least = cost.of(module), kept(groups, 1.0, self.scope, self.round_to)
        with self._blamed():
            formula = cost.formula(module, groups, least)
            by_counts = formula or cost.by_cutting(module, groups)
            ensure_within_reach(groups, by_counts, self._target[1] * full, self.scope, self.round_to, full)
            if self.scope == "uniform" and formula:  # else each try is a copy
                _, counts = solve(groups, formula, self._target[1] * full, self.scope, self.round_to)
                if widths := told_widths(groups, counts):
                    yield Note(f"about these widths: {widths}")

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The pruned, and where asked trained, model.

        Raises:
            StageError: nothing can be removed, the target cannot be reached, a layer in `ignore` does not exist, or the
                model is quantized.
        """
        self._expect_floats(model.module)
        channels = self.removable(model, StageError, ctx.warn)
        small = self.narrowed(model, channels, self._teachers(model, ctx), ctx)
        heads = [group for group in (*channels.groups, *channels.blind) if group.width == "heads"]
        return with_config(channels.model, small, heads if "heads" in self.widths else None, ctx.warn)

    def narrowed(self, incoming: TorchModel, channels: Removable, teachers: Teachers, ctx: Context) -> TorchModel:
        """The pruned model, of which a configuration keeps its numbers. Raises StageError as `run` does.

        Args:
            incoming: the model.
            channels: what of it can be removed.
            teachers: of its trainings.
            ctx: the data and the place.
        """
        model, whole = channels.model, set[str]()
        for text in unproven(model):
            ctx.warn(text)
        cost = self._cost(incoming, model, channels.groups, ctx)
        full = cost.whole(model.module)
        if self.prepare:
            groups = self._narrowable(channels.groups, StageError)
            model = self.prepare.prepared(teachers.before, model, groups, ctx)
        current, steps = model, list[JsonValue]()
        for step in range(1, self.steps + 1):
            budget = full * self._target[1] ** (step / self.steps)
            if step > 1:
                channels = self.removable(current, StageError)
            whole |= {*channels.whole}
            groups = [group for group in channels.groups if whole.isdisjoint(group.layers)]
            module, ratio, proven = self._pruned(current, groups, cost, budget, ctx)
            whole |= {*layers(groups)} - {*layers(proven)}
            current = model.edited(USE, layers=difference(model.module, module))
            current.module.load_state_dict(module.state_dict())
            steps.append({"target": budget / full, "achieved": cost.of(module) / full, "ratio": ratio})
            if self.recovery:
                current = self.recovery.retrained(teachers.after, current, ctx, f"recovery_{step}", step, self.steps)
        report_whole(model, current, whole, ctx)
        self._report(model, current, cost, steps, ctx)
        return current

    def removable(
        self, model: TorchModel, error: type[ShrinkError], say: Callable[[str], None] = lambda text: None
    ) -> Removable:
        """What can be removed, whatever the target. Raises `error` where that is nothing, or `ignore` names none."""
        return removable(model, Selection(self.widths, self.importance, self.ignore), error, say)

    def _narrowable(self, groups: Sequence[Coupled], error: type[ShrinkError]) -> list[Coupled]:
        """The groups that have a smaller width to go to. Raises `error` where there are none."""
        least = kept(groups, 1.0, self.scope, self.round_to)
        wide = [group for group, count in zip(groups, least, strict=True) if count < len(group.scores)]
        if not wide:
            problem = f"no layer can lose channels: {self._too_narrow} to {counted(layers(groups))}"
            raise error(problem, fix="Lower `round_to`")
        return wide

    @property
    def _too_narrow(self) -> str:
        return f"`round_to: {self.round_to}` leaves no smaller width"

    def _cost(
        self, incoming: TorchModel, plain: TorchModel, groups: Sequence[Coupled], ctx: Context
    ) -> Cost | Measured:
        if self._is_measured:
            return Measured("size" if self.size is not None else "latency", incoming, plain, ctx)
        return self._counted(plain, groups)

    def _counted(self, model: TorchModel, groups: Sequence[Coupled]) -> Cost:
        unit: Unit = "macs" if self.macs is not None else "params" if self.params is not None else "channels"
        return Cost(unit, model.example, frozenset(layers(groups)))

    def _pruned(
        self, model: TorchModel, groups: list[Coupled], cost: Cost | Measured, budget: float, ctx: Context
    ) -> tuple[nn.Module, float, list[Coupled]]:
        """The largest module found within the budget, the pruning ratio, and the groups without those that must stay.

        The same module if it is within already.
        """
        if cost.of(model.module) <= budget:
            return model.module, 0.0, groups
        groups = with_importance(groups, model, self.importance, ctx)
        if self.scope == "sensitivity":
            groups = by_effect(groups, list(effects(model, groups, RATIOS, ctx)), RATIOS)
        names = counted(layers(groups))
        while groups:
            with self._blamed():
                ratio, counts = cost.solved(model.module, groups, budget, self.scope, self.round_to)
            gone = lost(groups, counts)
            wrong = engine.unproven(model.module, model.example, gone, groups)
            if not wrong:
                return engine.trimmed(model.module, gone, groups), ratio, groups
            groups = [group for group in groups if group.root not in wrong]
        problem = f"no channels can leave {names}: without the chosen ones the model gives other values"
        fix = "Choose others by another `importance`, `scope` or target, or leave this stage out"
        raise StageError(problem, fix=fix)

    def chooses_by_answers(self) -> bool:
        """Where the target is a latency, and where answers say how far each layer is cut."""
        return self.latency is not None or self.scope == "sensitivity"

    def sensitivity(self) -> list[dict[str, JsonValue]]:
        """Of its layers to becoming narrower."""
        own = self.model_dump(mode="json", include={"importance", "ignore"})
        return [{"use": "prune.sensitivity", **own}]

    def _blamed(self) -> AbstractContextManager[None]:
        name, target = self._target
        return blame(StageError, f"target {name}: {target}")

    def _report(
        self, before: TorchModel, after: TorchModel, cost: Cost | Measured, steps: list[JsonValue], ctx: Context
    ) -> None:
        name, requested = self._target
        full, rest = cost.whole(before.module), cost.of(after.module)
        old, new = engine.widths(before.module), engine.widths(after.module)
        report: dict[str, JsonValue] = {
            "target": name,
            "requested": requested,
            "achieved": rest / full,
            **costs(before, after),
            "channels": {layer: {"before": old[layer], "after": new[layer]} for layer in old},
            "steps": steps,
        }
        if isinstance(cost, Measured):
            report["interval"] = [(estimate := cost.estimate(after.module)).low, estimate.high]
        ctx.report("pruning", report)
        why = f"widths are multiples of round_to = {self.round_to}, a smaller one comes closer"
        for note in far_below(name, requested, rest / full, why):
            ctx.warn(note)
