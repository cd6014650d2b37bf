"""Structured pruning of transformers: heads, feed-forward widths, the hidden width and whole blocks leave."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from pydantic import Field, JsonValue, model_validator

from pipeline.base.formatting import few
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note, ShrinkError, StageError
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage
from stages.prune.allocation.importance import IMPORTANCE, Importance, with_importance
from stages.prune.allocation.search import lost
from stages.prune.attention.config import with_config
from stages.prune.attention.plain import with_plain_attention
from stages.prune.channels import ChannelPruning
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled, Width
from stages.prune.coupling.telling import cost, costs, counted, layers, with_plain_weights
from stages.prune.ignored import ignored
from stages.prune.layers import LayerPruning
from stages.prune.reshape import USE, difference
from stages.prune.settings import SHARES, Narrowing, Teachers

OWN = ("widths", "importance", *(name for name in Narrowing.model_fields if name not in SHARES))
OF_SHARES = ("widths", "scope", "round_to", "steps")
"""Settings that are of no use beside `heads`."""
NO_HEADS = "no head of attention can leave"
EXPECTED = (
    "an attention with several heads by linear layers, Conv1D or nn.MultiheadAttention, and their number or size as an "
    "integer attribute"
)


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
        None, ge=1, description="blocks kept at most, left out beforehand as by prune.layers; the target counts them"
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
        if self.layers is not None:
            yield from self._depth().check(before, preview)

    def outlook(self, model: Model, before: Sequence[Stage], preview: Preview) -> Model | None:
        """The layers stay, only narrower, but for those that trained weights choose."""
        return model if self.layers is None else None

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """How many heads each attention has, which of them and what else can leave, and what stays.

        Refuse a model without attention whose heads can leave, numbers that it does not have, and targets out of reach.
        """
        if not isinstance(model, TorchModel):
            return
        if self.layers is not None:
            yield from self._depth().reach(model, before)
        notes = list[str]()
        if self.heads is not None:
            groups = self._attention(self._plain(model, notes.append), ConfigError)
            most = max(len(group.scores) for group in groups)
            if self.heads >= most:
                problem = f"`heads` is {self.heads}, and there are {told(groups)}"
                raise ConfigError(problem, expected=f"1 to {most - 1}")
            yield from notes
            yield Note(f"at most {self.heads} heads of each attention stay: of {told(groups)}")
            return
        if "heads" in self.widths:
            yield Note(f"heads can leave: {told(self._attention(self._plain(model, notes.append), ConfigError))}")
        # Blocks that leave change what the share is of.
        behind = (*before, self) if self.layers is not None else before
        yield from self._narrowing().reach(model, behind)

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The pruned, and where asked trained, model.

        Raises:
            StageError: no head can leave, the target cannot be reached, a name in `ignore` is not there, or the model
                is quantized.
        """
        self._expect_floats(model.module)
        teachers = self._teachers(model, ctx)
        shallow = model if self.layers is None else self._depth().run(model, ctx)
        share = self._rest(model, shallow)
        if self.heads is not None:
            small = self._cut(shallow, teachers, ctx)
        elif share < 1:
            small = self._narrowing(share).narrowed(shallow, teachers, ctx)
        else:
            ctx.warn(Note("without the blocks that left the target holds: no width shrinks"))
            small = self.recovery.retrained(teachers.after, shallow, ctx, "recovery") if self.recovery else shallow
        plain = self._plain(shallow, lambda text: None)
        groups = self._attention(plain, StageError, or_none=True)
        small = with_config(plain, small, layers(groups), ctx.warn)
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

    def _depth(self) -> LayerPruning:
        return LayerPruning.model_validate({"blocks": self.layers})

    def _cut(self, model: TorchModel, teachers: Teachers, ctx: Context) -> TorchModel:
        """The model with as many heads at most in each attention."""
        plain, groups = self._narrowing().prunable(model, ctx)
        if self.prepare:
            plain = self.prepare.prepared(teachers.before, plain, groups, ctx)
            groups = with_importance(groups, plain, self.importance, ctx)
        counts = tuple(min(self.heads or 1, len(group.scores)) for group in groups)
        gone = lost(groups, counts)
        if not gone:
            raise StageError(f"no attention has more heads than {self.heads}: {told(groups)}", fix="Lower `heads`")
        module = engine.cut(plain.module, plain.example, gone, groups)
        small = plain.edited(USE, layers=difference(plain.module, module))
        small.module.load_state_dict(module.state_dict())
        return self.recovery.retrained(teachers.after, small, ctx, "recovery") if self.recovery else small

    def _report(self, before: TorchModel, groups: list[Coupled], after: TorchModel, ctx: Context) -> None:
        name, requested = self._target
        widths = engine.widths(self._plain(after, lambda text: None).module)
        heads: dict[str, JsonValue] = {
            group.root: {"before": (most := len(group.scores)), "after": most * widths[group.root] // len(group.labels)}
            for group in groups
        }
        ctx.report("transformer", {"target": name, "requested": requested, **costs(before, after), "heads": heads})

    def _plain(self, model: TorchModel, say: Callable[[str], None]) -> TorchModel:
        return with_plain_attention(with_plain_weights(model, say), say)

    def _attention(self, model: TorchModel, error: type[ShrinkError], or_none: bool = False) -> list[Coupled]:
        """The heads that can leave. Raises `error` where there are none that must be, or `ignore` names none."""
        names = ignored(model.module, self.ignore, error)
        couplings = engine.couplings(model.module, model.example, names, with_heads=True)
        groups = [group for group in couplings.groups if group.width == "heads"]
        if not groups and not or_none:
            stay = f"; these stay whole: {few([f'`{name}`' for name in couplings.whole])}" if couplings.whole else ""
            fix = "Set `widths: [feed_forward]`, or take prune.channels"
            raise error(f"{NO_HEADS}{stay}", expected=EXPECTED, fix=fix)
        return groups


def told(groups: Sequence[Coupled]) -> str:
    """How many heads each attention has, by the layers that give queries."""
    by_number: dict[int, list[str]] = {}
    for group in groups:
        by_number.setdefault(len(group.scores), []).append(group.root)
    return ", ".join(f"{number} in {counted(names, 'attention')}" for number, names in by_number.items())
