"""Which channels of a model can be removed, within the settings of a stage."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.base.formatting import few
from pipeline.errors import Note, ShrinkError
from pipeline.model import TorchModel
from stages.prune.allocation.importance import Importance, has_measure
from stages.prune.attention.plain import with_plain_attention
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled, Width
from stages.prune.coupling.telling import counted, layers, listed, with_plain_weights
from stages.prune.ignored import ignored

CHANNELS = "a convolution, linear or recurrent layer that is not the last one and not in `ignore`"
HEADS = (
    "an attention with several heads by linear layers, Conv1D or nn.MultiheadAttention, and their number or size as an "
    "integer attribute"
)


class Selection(NamedTuple):
    """What is looked for.

    Args:
        widths: which may shrink.
        importance: by which channels will be chosen; those that it does not see stay.
        ignore: names of layers, or of parts with layers, whose output channels stay; with * for any letters.
    """

    widths: tuple[Width, ...]
    importance: Importance
    ignore: tuple[str, ...]


class Removable(NamedTuple):
    """Channels of a model that can be removed.

    Args:
        model: with plain weights, and with plain layers in attention where its heads may leave.
        groups: of channels that leave together; not empty.
        whole: names of the layers whose channels stay, for they cannot be told apart.
        blind: groups that stay, for the importance does not see them.
    """

    model: TorchModel
    groups: list[Coupled]
    whole: tuple[str, ...]
    blind: list[Coupled]


def removable(
    model: TorchModel, selection: Selection, error: type[ShrinkError], say: Callable[[str], None]
) -> Removable:
    """What of a model can be removed; `say` gets notes on what was changed for it, and on what stays.

    Raises `error` where that is nothing, or `ignore` names none.
    """
    with_heads, alone = "heads" in selection.widths, selection.widths == ("heads",)
    model = with_plain_weights(model, say)
    model = with_plain_attention(model, say) if with_heads else model
    names = ignored(model.module, selection.ignore, error)
    couplings = engine.couplings(model.module, model.example, names, with_heads)
    candidates = [group for group in couplings.groups if group.width in selection.widths]
    if not candidates:
        raise no_heads(couplings.whole, error) if alone else _no_channels(couplings.whole, error)
    groups = [group for group in candidates if has_measure(group, model.module, selection.importance)]
    if not groups:
        problem = f"`importance: {selection.importance}`, and no channels that can leave are normalized with scales"
        raise error(problem, fix="Set importance: magnitude")
    blind = [group for group in candidates if group not in groups]
    if stay := [layer for layer in layers(blind) if layer not in layers(groups)]:
        say(Note(f"all channels stay of {counted(stay)}: no scale of a normalization tells how much they matter"))
    return Removable(model, groups, couplings.whole, blind)


def no_heads(whole: Sequence[str], error: type[ShrinkError]) -> ShrinkError:
    """The error where no head of attention can leave, which says what stays whole."""
    stay = f"; these stay whole: {few([f'`{name}`' for name in whole])}" if whole else ""
    fix = "Set `widths: [feed_forward]`, or take prune.channels"
    return error(f"no head of attention can leave{stay}", expected=HEADS, fix=fix)


def _no_channels(whole: Sequence[str], error: type[ShrinkError]) -> ShrinkError:
    stay = f"; those of {listed(whole)} cannot be told apart" if whole else ""
    return error(f"no layer can lose channels{stay}", expected=CHANNELS)
