"""The numbers of a starting config, from what was found: how long to train, and what the budget asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

from pipeline.cli.init.facts import Facts
from pipeline.cli.init.students import Student
from pipeline.measure.statistics.samples import samples_needed

Target = Literal["cpu", "gpu", "edge"]

EXAMPLES_SEEN = 500_000  # in a training: enough for a first look, and minutes for a small network
MOST_EPOCHS, FEWEST_EPOCHS = 50, 3
LIMITS = (0.98, 0.97, 0.95, 0.9)  # of retention, the first that the test split can decide
INT8 = 0.27  # of fp32, with scales
PACKED = 0.17  # of fp32: integers of 4 bits, of 8 in the first and the last layer, and scales
AWARE_RATE = 3e-4  # at most, where weights are trained with their rounding
GRAPH, LAYER = 1e3, 500  # bytes of a graph beside its weights, and for each of its layers
ROOM = 1.4  # between what is likely to come out and the limit
HIGHEST = 0.95  # of the baseline; more would ask for nothing
BIG_STEP, SMALL_STEP = 10_000, 1_000


@dataclass(frozen=True)
class Values:
    """What a template fills in.

    Args:
        epochs: of a training from scratch or of a distillation.
        recovery: epochs after pruning.
        learning_rate: of both.
        aware_rate: the same where weights are trained with their rounding.
        macs: share of the multiply-accumulates that pruning leaves.
        round_to: pruned widths are multiples of it.
        retention: the least.
        decidable: whether the test split can decide it.
        size: largest share of the baseline's file; None where nothing of the preset makes it smaller.
        size_bytes: the same in bytes.
    """

    epochs: int
    recovery: int
    learning_rate: float
    aware_rate: float
    macs: float
    round_to: int
    retention: float
    decidable: bool
    size: float | None
    size_bytes: int


def values(facts: Facts, target: Target, stages: Sequence[str], student: Student | None = None) -> Values:
    """Numbers that suit a model and a target.

    Args:
        facts: what was found.
        target: where the model is to run.
        stages: those of the preset.
        student: how the teacher is made smaller, where it is.
    """
    epochs = min(max(round(EXAMPLES_SEEN / max(facts.examples["train"], 1)), FEWEST_EPOCHS), MOST_EPOCHS)
    test = facts.examples["test"]
    retention = next((limit for limit in LIMITS if samples_needed(limit) <= test), LIMITS[-1])
    macs = 0.4 if target == "edge" and student is None else 0.5
    share = _share(facts, macs, stages, student.share if student else 1.0)
    width = facts.width // 2 if student and student.narrows else facts.width
    overhead = (GRAPH + LAYER * facts.layers) / max(facts.size_bytes, 1)
    size = min(ceil(20 * (ROOM * share + overhead)) / 20, HIGHEST) if share < 1 else None
    bytes_ = (size or 1.0) * facts.size_bytes
    step = BIG_STEP if bytes_ > 10 * BIG_STEP else SMALL_STEP
    return Values(
        epochs=epochs,
        recovery=max(epochs // 2, FEWEST_EPOCHS),
        learning_rate=_rate(facts),
        aware_rate=min(_rate(facts), AWARE_RATE),
        macs=macs,
        round_to=next((multiple for multiple in (8, 4, 2) if width >= 4 * multiple), 1),
        retention=retention,
        decidable=samples_needed(retention) <= test,
        size=size,
        size_bytes=max(ceil(bytes_ / step), 1) * step,
    )


def _share(facts: Facts, macs: float, stages: Sequence[str], student: float) -> float:
    """About how much of the file is left; 1 where nothing makes it smaller."""
    shares = {"prune.channels": macs, "quantize.pack": PACKED}
    shares |= dict.fromkeys(("quantize.static", "quantize.dynamic", "quantize.optimum"), INT8)
    # Tables of embeddings stay as they are, and in fp32 but for these.
    whole = facts.embeddings if facts.text and not {"quantize.optimum", "quantize.aware"} & set(stages) else 0.0
    whole += facts.loops if "quantize.dynamic" in stages else 0.0
    return whole + max(student - whole, 0) * prod(shares.get(stage, 1.0) for stage in stages)


def _rate(facts: Facts) -> float:
    """The usual peak for AdamW."""
    if facts.kind in ("transformer", "sequence"):
        return 1e-4 if facts.trained else 5e-4
    return 1e-3
