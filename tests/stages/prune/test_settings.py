"""What all stages that prune have in common: one target, and trainings that are counted."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.stage import Stage
from stages.prune.channels import ChannelPruning
from stages.prune.layers import LayerPruning
from stages.prune.lowrank import LowRankFactorization
from stages.prune.transformers import TransformerPruning
from stages.prune.weights import WeightPruning

STAGES: dict[type[Any], tuple[str, ...]] = {
    ChannelPruning: ("macs", "params", "size", "latency", "channels"),
    TransformerPruning: ("macs", "params", "size", "latency", "heads"),
    LayerPruning: ("macs", "params", "blocks"),
    LowRankFactorization: ("macs", "params", "energy", "rank"),
    WeightPruning: ("sparsity", "pattern"),
}
VALUES: dict[str, Any] = {"heads": 2, "blocks": 2, "rank": {"*": 4}, "pattern": "2:4"}
RECOVERY = {"epochs": 6, "batch_size": 16, "accumulate": 2}


@pytest.mark.parametrize("kind", STAGES)
def test_exactly_one_target_is_set_and_the_schema_says_so(kind: type[Any]) -> None:
    targets = STAGES[kind]
    names = ", ".join(f"`{target}`" for target in targets)
    for settings in ({}, {target: VALUES.get(target, 0.5) for target in targets[:2]}):
        with pytest.raises(ValidationError, match=f"exactly one target of {names}, such as `{targets[0]}: 0.5`"):
            kind(**settings)
    for target in targets:
        kind(**{target: VALUES.get(target, 0.5)})
    assert kind.model_json_schema()["oneOf"] == [{"required": [target]} for target in targets]


@pytest.mark.parametrize(
    ("stage", "count"),
    [
        (ChannelPruning(macs=0.5), 0),
        (ChannelPruning(macs=0.5, steps=3, recovery=RECOVERY), 3),
        (ChannelPruning(macs=0.5, steps=3, recovery=RECOVERY, prepare=RECOVERY), 4),
        (TransformerPruning(macs=0.5, layers=2, steps=2, recovery=RECOVERY), 2),
        (TransformerPruning(heads=2, recovery=RECOVERY, prepare=RECOVERY), 2),
        (WeightPruning(sparsity=0.5, steps=3, recovery=RECOVERY), 3),
        (LayerPruning(blocks=2, recovery=RECOVERY), 1),
        (LowRankFactorization(macs=0.5, recovery=RECOVERY), 1),
    ],
)
def test_each_step_is_a_training_of_its_own(stage: Stage, count: int) -> None:
    assert [*stage.trainings()] == [(16, 2)] * count
