"""What the stage refuses before work, and what it does not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from stages.prune.channels import ChannelPruning
from stages.prune.sensitivity import PruningSensitivity
from stages.quantize.aware import AwareQuantization
from tests.contexts import preview_of, refused
from tests.stages.prune.prune_nets import built, context

HERE = Path(__file__).parent


class Widened(nn.Module):
    """A shortcut of 4 channels that is filled up with 28 of zeros: these stay."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 32, 3, padding=1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.wide(torch.relu(x)) + nn.functional.pad(x, (0, 0, 0, 0, 0, 28)))
        return self.head(x.mean((2, 3)))


def test_a_model_of_which_few_channels_can_leave_is_measured(tmp_path: Path) -> None:
    model = built("test_sensitivity.py:Widened", folder=HERE)
    refused(
        "target channels: 0.5: the cost is still 30", ChannelPruning(channels=0.5, round_to=1).reach(model), StageError
    )
    stage = PruningSensitivity(examples=8)
    assert not [*stage.reach(model)]
    stage.run(model, context(tmp_path, reports := {}))
    assert [row["layer"] for row in reports["sensitivity"]["layers"]] == ["wide"]


def test_a_model_of_which_none_can_leave_and_wrong_names_are_refused_before_work() -> None:
    refused(
        "no layer can lose channels", PruningSensitivity(ignore=("one", "two")).reach(built("prune_nets.py:PlainNet"))
    )
    refused("`ignore` names `tow`", PruningSensitivity(ignore=("tow",)).reach(built("prune_nets.py:PlainNet")))


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    model, aware = built("prune_nets.py:PlainNet"), AwareQuantization(epochs=1)
    stage, message = PruningSensitivity(), r"the weights are quantized.* Put prune\.sensitivity before quantize\.aware"
    refused(message, stage.check([aware], preview_of(model)))
    assert not [*stage.check([], preview_of(model))]
    steps = nn.PReLU()
    steps.is_aside = True  # type: ignore[assignment]
    quantized = replace(model, module=nn.Sequential(model.module, steps))
    with pytest.raises(StageError, match=message):
        stage.run(quantized, context(tmp_path, {}))
