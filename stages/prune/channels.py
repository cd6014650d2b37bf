"""Structured pruning: whole channels leave, and what is left is an ordinary, smaller network."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import ClassVar

from pydantic import Field, JsonValue
from torch import nn

from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note, ShrinkError, StageError, blame
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage
from stages.prune.allocation.costs import Cost, Unit
from stages.prune.allocation.effects import RATIOS, by_effect, effects
from stages.prune.allocation.importance import IMPORTANCE, READS_DATA, Importance, has_measure, with_importance
from stages.prune.allocation.measured import Measured
from stages.prune.allocation.search import ensure_within_reach, kept, lost
from stages.prune.attention.plain import with_plain_attention
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled, Couplings, Width
from stages.prune.coupling.telling import (
    WHOLE,
    costs,
    counted,
    far_below,
    layers,
    listed,
    report_whole,
    unproven,
    with_plain_weights,
)
from stages.prune.ignored import ignored
from stages.prune.reshape import USE, difference
from stages.prune.settings import SHARES, Narrowing, Teachers
from stages.prune.training.recovery import IDLE_STEPS
from stages.prune.weights import WeightPruning

NONE_LEAVES = "a convolution, linear or recurrent layer that is not the last one and not in `ignore`"


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
            yield "where channels leave the pattern of prune.weights does not hold: put it behind prune.channels"
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
        model = self._plain(model, notes.append)
        couplings = self._couplings(model, ConfigError, notes.append)
        yield from notes
        groups = self._narrowable(couplings.groups, ConfigError)
        narrow = [layer for layer in layers(couplings.groups) if layer not in layers(groups)]
        yield Note(f"channels leave {counted(layers(groups))}")
        for names, why in ((narrow, self._too_narrow), (couplings.whole, WHOLE)):
            if names:
                yield Note(f"all channels stay of {counted(names)}: {why}")
        # Behind a stage that narrows the target is a share of a cost that is not known yet.
        if not self._is_measured and not any(stage.narrows for stage in before):
            self._ensure_within_reach(model, couplings.groups)
        yield from unproven(model)

    def _ensure_within_reach(self, model: TorchModel, groups: list[Coupled]) -> None:
        """Raise StageError where the target is out of reach however much is removed."""
        cost = self._counted(model, groups)
        with self._blamed():
            counted = cost.by_counts(model.module, groups, kept(groups, 1.0, self.scope, self.round_to))
            ensure_within_reach(groups, counted, self._target[1] * cost.of(model.module), self.scope, self.round_to)

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The pruned, and where asked trained, model.

        Raises:
            StageError: nothing can be removed, the target cannot be reached, a layer in `ignore` does not exist, or the
                model is quantized.
        """
        self._expect_floats(model.module)
        return self.narrowed(model, self._teachers(model, ctx), ctx)

    def narrowed(self, model: TorchModel, teachers: Teachers, ctx: Context) -> TorchModel:
        """What `run` gives, with the teachers of its trainings. Raises StageError as that does."""
        incoming, model = model, self._plain(model, ctx.warn)
        for text in unproven(model):
            ctx.warn(text)
        couplings, whole = self._couplings(model, StageError, ctx.warn), set[str]()
        cost = self._cost(incoming, model, couplings.groups, ctx)
        full = cost.whole(model.module)
        if self.prepare:
            groups = self._narrowable(couplings.groups, StageError)
            model = self.prepare.prepared(teachers.before, model, groups, ctx)
        current, steps = model, list[JsonValue]()
        for step in range(1, self.steps + 1):
            budget = full * self._target[1] ** (step / self.steps)
            if step > 1:
                couplings = self._couplings(current, StageError)
            whole |= {*couplings.whole}
            groups = [group for group in couplings.groups if whole.isdisjoint(group.layers)]
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

    def _plain(self, model: TorchModel, say: Callable[[str], None]) -> TorchModel:
        """The model with plain weights, and plain layers in attention where its heads can leave."""
        model = with_plain_weights(model, say)
        return with_plain_attention(model, say) if "heads" in self.widths else model

    def _couplings(
        self, model: TorchModel, error: type[ShrinkError], say: Callable[[str], None] = lambda text: None
    ) -> Couplings:
        """What can be removed, and what stays whole. Raises `error` where that is nothing, or `ignore` names none."""
        names = ignored(model.module, self.ignore, error)
        couplings = engine.couplings(model.module, model.example, names, "heads" in self.widths)
        couplings = replace(couplings, groups=[group for group in couplings.groups if group.width in self.widths])
        if not couplings.groups:
            whole = listed(couplings.whole)
            problem = f"no layer can lose channels{f'; those of {whole} cannot be told apart' if whole else ''}"
            raise error(problem, expected=NONE_LEAVES)
        groups = [group for group in couplings.groups if has_measure(group, model.module, self.importance)]
        if not groups:
            problem = f"`importance: {self.importance}`, and no channels that can leave are normalized with scales"
            raise error(problem, fix="Set importance: magnitude")
        if blind := [layer for layer in layers(couplings.groups) if layer not in layers(groups)]:
            say(Note(f"all channels stay of {counted(blind)}: no scale of a normalization tells how much they matter"))
        return replace(couplings, groups=groups)

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

    def prunable(self, model: TorchModel, ctx: Context) -> tuple[TorchModel, list[Coupled]]:
        """The model with plain weights, and the groups of its channels that can be removed, with their importance.

        Raises:
            StageError: there are none, or a layer in `ignore` does not exist.
        """
        plain = self._plain(model, ctx.warn)
        return plain, with_importance(self._couplings(plain, StageError).groups, plain, self.importance, ctx)

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
