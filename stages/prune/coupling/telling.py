"""What pruning says of the layers that it reaches, leaves whole, or changes beforehand."""

from collections.abc import Callable, Iterable, Sequence

from pydantic import JsonValue
from torch import nn

from pipeline.base.batches import Inputs
from pipeline.base.formatting import few
from pipeline.context import Context
from pipeline.errors import Note, StageError
from pipeline.measure.cost import torch_macs, torch_params
from pipeline.model import TorchModel
from stages.prune.computed import USE as PLAIN
from stages.prune.computed import computed
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled
from stages.prune.coupling.flow import Flow

WHOLE = "what reads them cannot be told apart, or gives other values without them"
FAR_BELOW = 0.9  # of the target; below it the record carries a note
UNPROVEN = "not run in evaluation mode, where what is cut is proven"


def report_whole(before: TorchModel, after: TorchModel, whole: set[str], ctx: Context) -> None:
    """Say of which layers no channel could leave, from the first step on or from a later one."""
    if not whole:
        return
    old, new = engine.widths(before.module), engine.widths(after.module)
    names = [name for name in old if name in whole]
    stayed = [name for name in names if old[name] == new[name]]
    narrowed = [name for name in names if old[name] != new[name]]
    texts = [f"all channels stay of {counted(stayed)}"] * bool(stayed)
    texts += [f"those that earlier steps left stay of {counted(narrowed)}"] * bool(narrowed)
    ctx.warn(Note(f"{', and '.join(texts)}: {WHOLE}"))
    ctx.report("whole", [*names])


def cost(unit: str, module: nn.Module, example: Inputs) -> int:
    """The MACs of one example, or the parameters for any other unit than `macs`."""
    return torch_macs(module, example) if unit == "macs" else torch_params(module)


def costs(before: TorchModel, after: TorchModel) -> dict[str, JsonValue]:
    """MACs and parameters of both."""
    models = {"before": before, "after": after}
    return {
        unit: {when: cost(unit, model.module, model.example) for when, model in models.items()}
        for unit in ("macs", "params")
    }


def far_below(target: str, requested: float, achieved: float, why: str) -> list[Note]:
    """A note where much less is left than was asked for, and why."""
    if achieved >= FAR_BELOW * requested:
        return []
    outcome = f"`{target}: {requested:g}` was asked for and {achieved:.3f} remains"
    return [Note(f"{outcome}; {why}")]


def unproven(model: TorchModel) -> list[str]:
    """A warning that names what does not run where values are compared, if anything."""
    names = Flow(model.module, model.example).unproven()
    return [f"{UNPROVEN}: {listed(names)}"] if names else []


def with_plain_weights(model: TorchModel, say: Callable[[str], None]) -> TorchModel:
    """The model with weights that are not computed from others, and a note where they were."""
    if not (names := computed(model.module)):
        return model
    say(Note(f"weight normalization and the like go into the weights of {counted(names)}, which are plain ones then"))
    return model.edited(PLAIN)


def check_finite(model: TorchModel) -> None:
    """Raise StageError where a weight is no number."""
    for name, parameter in model.module.named_parameters():
        if not parameter.isfinite().all():
            raise StageError(f"`{name}` is not finite", fix="Look for NaN in the training before")


def layers(groups: Iterable[Coupled]) -> list[str]:
    """The names of the layers of some groups."""
    return [layer for group in groups for layer in group.layers]


def counted(names: Sequence[str], what: str = "layer") -> str:
    """How many layers, or what else has the names, and the first names."""
    return f"{len(names)} {what}{'s' * (len(names) > 1)} ({few([f'`{name}`' for name in names])})"


def listed(names: Iterable[str]) -> str:
    """All names."""
    return ", ".join(f"`{name}`" for name in names)
