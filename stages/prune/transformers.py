"""Structured pruning of transformers: heads, feed-forward widths, the hidden width and whole blocks leave."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import Field, JsonValue, model_validator

from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note, ShrinkError, StageError
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage
from stages.prune.allocation.importance import IMPORTANCE, Importance, with_importance
from stages.prune.allocation.removable import no_heads
from stages.prune.allocation.search import lost
from stages.prune.attention.config import heads_of, plain, with_config
from stages.prune.channels import ChannelPruning
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled, Width
from stages.prune.coupling.telling import cost, costs, counted
from stages.prune.ignored import ignored
from stages.prune.layers import LayerPruning
from stages.prune.reshape import USE, difference
from stages.prune.settings import SHARES, Narrowing, Teachers

OWN = ("widths", "importance", *(name for name in Narrowing.model_fields if name not in SHARES))
OF_SHARES = ("widths", "scope", "round_to", "steps")
"""Settings that are of no use beside `heads`."""


class TransformerPruning(Narrowing, Stage):
    """A smaller ordinary transformer: the least important heads and widths, and where asked blocks, are gone.

    Choose it for encoders of text and images before quantization, and give it `recovery`. Heads are recognised in the
    module, by values.

    Example:
        - {use: prune.transformers, macs: 0.6, recovery: {epochs: 3}}

    Reference: Paul Michel, Omer Levy, Graham Neubig, "Are Sixteen Heads Really Better than One?", 2019,
    arXiv:1905.10650, section 4.1, with the gradient times weight of all that a head has in place of its mask.
    """

    targets: ClassVar[tuple[str, ...]] = (*SHARES, "heads")

    heads: int | None = Field(
        None, ge=1, description="or heads that each attention keeps at most; of grouped queries, those of the keys"
    )
    layers: int | None = Field(
        None,
        ge=1,
        description="blocks kept at most, of those that can be left out: beforehand, as by prune.layers, with which "
        "what is in `ignore` stays with its block; the target counts them",
    )
    widths: tuple[Width, ...] = Field(
        ("heads", "feed_forward"),
        min_length=1,
        description="which may shrink for a share. heads: whole ones; feed_forward; hidden: what goes from block to "
        "block",
    )
    importance: Importance = Field("taylor", description=IMPORTANCE)

    @model_validator(mode="after")
    def _consistent(self) -> "TransformerPruning":
        idle = [name for name in OF_SHARES if getattr(self, name) != type(self).model_fields[name].default]
        if self.heads is not None and idle:
            raise ValueError(f"with `heads` no other width changes, in one step: leave out `{idle[0]}`")
        if self.layers is not None and self._is_measured:
            raise ValueError("with `layers` the target is `macs`, `params` or `heads`; prune.layers goes before others")
        return self

    def chooses_by_answers(self) -> bool:
        """As of prune.channels, and of prune.layers where blocks leave."""
        return self.layers is not None or self._narrowing().chooses_by_answers()

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """As of prune.channels, and of prune.layers where blocks leave."""
        self._expect_floats_behind(before)
        yield from self._narrowing().check(before, preview)

    def outlook(self, model: Model, before: Sequence[Stage], preview: Preview) -> Model | None:
        """The layers stay, only narrower, but for blocks that trained weights choose."""
        return model

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """How many heads each attention has, which of them and what else can leave, and what stays.

        Refuse a model without attention whose heads can leave, numbers that it does not have, and targets out of reach.
        """
        if not isinstance(model, TorchModel):
            return
        if self.layers is not None:
            yield from self._depth(model, ConfigError).reach(model, before)
        notes, narrowing = list[str](), self._narrowing()
        channels = narrowing.removable(model, ConfigError, notes.append)
        yield from notes
        heads = [group for group in channels.groups if group.width == "heads"]
        if self.heads is not None:
            most = max(len(group.scores) for group in heads)
            if self.heads >= most:
                problem = f"`heads` is {self.heads}, and there are {told(heads)}"
                raise ConfigError(problem, expected=f"1 to {most - 1}")
            yield Note(f"at most {self.heads} heads of each attention stay: of {told(heads)}")
            return
        if heads:
            yield Note(f"heads can leave: {told(heads)}")
        elif "heads" in self.widths and not any(group.width == "heads" for group in channels.blind):
            raise no_heads(channels.whole, ConfigError)
        # Blocks that leave change what the share is of.
        yield from narrowing.limits(channels, (*before, self) if self.layers is not None else before)

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The pruned, and where asked trained, model.

        Raises:
            StageError: no head can leave, the target cannot be reached, a name in `ignore` is not there, or the model
                is quantized.
        """
        self._expect_floats(model.module)
        teachers = self._teachers(model, ctx)
        shallow = model if self.layers is None else self._depth(model, StageError).run(model, ctx)
        share = self._rest(model, shallow)
        if self.heads is not None:
            small = self._cut(shallow, teachers, ctx)
        elif share < 1:
            narrowing = self._narrowing(share)
            channels = narrowing.removable(shallow, StageError, ctx.warn)
            small = narrowing.narrowed(shallow, channels, teachers, ctx)
        else:
            ctx.warn(Note("without the blocks that left the target holds: no width shrinks"))
            small = self.recovery.retrained(teachers.after, shallow, ctx, "recovery") if self.recovery else shallow
        whole = plain(shallow)
        groups = heads_of(whole, self.ignore)
        small = with_config(whole, small, groups, ctx.warn)
        self._report(model, groups, small, ctx)
        return small

    def _rest(self, model: TorchModel, shallow: TorchModel) -> float:
        """The share that widths keep, where blocks have left."""
        name, share = self._target[0], float(self._target[1])
        if self.layers is None or name == "heads":
            return share if name != "heads" else 0.0
        before, after = (cost(name, module, model.example) for module in (model.module, shallow.module))
        return share * before / after

    def _narrowing(self, share: float | None = None) -> ChannelPruning:
        """The stage that cuts widths; for `heads`, one that finds and ranks them."""
        name, value = self._target
        own: dict[str, Any] = {key: getattr(self, key) for key in OWN}
        if name == "heads":
            name, value = "channels", 0.5
            own |= {"widths": ("heads",)}
        return ChannelPruning.model_validate({name: share or value, **own})

    def _depth(self, model: TorchModel, error: type[ShrinkError]) -> LayerPruning:
        """The stage that leaves blocks out; those stay that have something in `ignore`, also of plain layers."""
        names, ignore = {name for name, _ in model.module.named_modules()}, set[str]()
        for name in ignored(plain(model).module, self.ignore, error):
            while name not in names:
                name = name.rpartition(".")[0]
            ignore.add(name)
        return LayerPruning.model_validate({"blocks": self.layers, "ignore": sorted(ignore)})

    def leaves_out(self) -> bool:
        """Where blocks leave."""
        return self.layers is not None

    def _cut(self, model: TorchModel, teachers: Teachers, ctx: Context) -> TorchModel:
        """The model with as many heads at most in each attention."""
        channels, most = self._narrowing().removable(model, StageError, ctx.warn), self.heads or 1
        current, groups = channels.model, [group for group in channels.groups if len(group.scores) > most]
        if not groups:
            raise StageError(f"no attention has more heads than {most}: {told(channels.groups)}", fix="Lower `heads`")
        if self.prepare:
            current = self.prepare.prepared(teachers.before, current, groups, ctx)
        groups = with_importance(groups, current, self.importance, ctx)
        gone = lost(groups, (most,) * len(groups))
        module = engine.cut(current.module, current.example, gone, groups)
        small = current.edited(USE, layers=difference(current.module, module))
        small.module.load_state_dict(module.state_dict())
        return self.recovery.retrained(teachers.after, small, ctx, "recovery") if self.recovery else small

    def _report(self, before: TorchModel, groups: list[Coupled], after: TorchModel, ctx: Context) -> None:
        name, requested = self._target
        widths = engine.widths(plain(after).module)
        heads: dict[str, JsonValue] = {
            group.root: {"before": (most := len(group.scores)), "after": most * widths[group.root] // len(group.labels)}
            for group in groups
        }
        ctx.report("transformer", {"target": name, "requested": requested, **costs(before, after), "heads": heads})


def told(groups: Sequence[Coupled]) -> str:
    """How many heads each attention has, by the layers that give queries."""
    by_number: dict[int, list[str]] = {}
    for group in groups:
        by_number.setdefault(len(group.scores), []).append(group.root)
    return ", ".join(f"{number} in {counted(names, 'attention')}" for number, names in by_number.items())
