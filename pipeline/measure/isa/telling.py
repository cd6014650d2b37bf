"""What is said of answers on another CPU, in a line."""

from pipeline.base.formatting import difference_text
from pipeline.records.parts.targets import SaturatingLayer, TargetRecord

REDUCE = "`reduce_range: true` avoids that at the same size"
SWITCH = 'ONNX Runtime\'s session option session.x64quantprecision: "1" avoids that, more slowly'


def target_text(target: TargetRecord) -> str:
    """What a file answers there, and what to do where that costs something."""
    if target.reason:
        return f"what it answers on {target.isa} is not known: {target.reason}"
    if target.score is None or not (target.changed or target.difference or (target.drop and target.drop.value)):
        return f"on {target.isa}, emulated, it answers as here, with a score of {target.score or 0:.4f}"
    text = f"on {target.isa}, emulated, it scores {target.score:.4f}"
    if target.drop:
        text += f", {difference_text(target.drop, shares=0 <= target.score <= 1)} less than here"
    text += f" ({flips})" if (flips := _flips(target)) else ""
    if target.budget_here_alone:
        text += "; the budget is kept here and not there"
    if target.layers:
        text += f"; sums saturate most in {layer_text(target.layers[0])}"
        text += f". {REDUCE if target.reduce_range_helps else SWITCH}"
    return text


def layer_text(layer: SaturatingLayer) -> str:
    """A layer, and what saturation takes off its sums."""
    size = "x".join(map(str, layer.shape))
    return f"`{layer.node}` (product {layer.place}, {layer.operator}, {size}), by {layer.error:.1%}"


def is_loss(target: TargetRecord) -> bool:
    """Whether to warn: it is not known, surely less, or the budget is kept here alone."""
    if target.reason or target.budget_here_alone:
        return True
    return target.drop is not None and target.drop.low > 0


def _flips(target: TargetRecord) -> str:
    parts = [f"{target.flips.lost:,} lost, {target.flips.gained:,} gained"] if target.flips else []
    parts += [f"{target.changed:.2%} of decisions are others"] if target.changed is not None else []
    return "; ".join(parts)
