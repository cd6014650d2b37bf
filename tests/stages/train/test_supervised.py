"""Supervised training as a stage."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.fit import forms
from pipeline.model import TorchModel
from pipeline.run.roundtrip import save_exactly
from stages.train.supervised import SupervisedTraining
from tests.aliases import Make
from tests.trained import score, teach


def test_the_stage_trains_a_model_that_is_saved_to_the_bit(tiny: Make, context: Make, tmp_path: Path) -> None:
    ctx, model = context(), tiny()
    trained = teach(model, ctx)
    assert score(trained, ctx) > score(model, ctx) + 0.3
    assert len(context.reports["training"]) == 8
    save_exactly(trained, tmp_path / "kept", trained.builder.folder)


def test_the_stage_takes_and_gives_a_torch_model() -> None:
    assert forms(SupervisedTraining) == (frozenset({TorchModel}), TorchModel)


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0}, {"warmup": 1}, {"schedule": "step"}, {"gradient_clip": 0},
     {"patience": 0}, {"weight_decay": -1}, {"optimizer": "adam"}, {"epoch": 3}],
    ids=str,
)  # fmt: skip
def test_a_setting_out_of_range_or_misspelt_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        SupervisedTraining(**settings)
