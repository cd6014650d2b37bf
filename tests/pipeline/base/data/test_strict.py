"""What is no number is not taken for one, in a stage's settings as in what these hold; what fits stays what it was."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.build.syntax.validate import validate
from pipeline.errors import ConfigError
from pipeline.gate.budget import Budget
from stages.export.onnx import OnnxExport
from stages.prune.channels import ChannelPruning
from stages.quantize.aware import AwareQuantization
from stages.quantize.pack import WeightPacking


def settings(model: type[BaseModel], data: dict[str, Any]) -> Any:
    return validate(model, data, None, (), Path())


@pytest.mark.parametrize(("model", "data", "message"), [
    (AwareQuantization, {"epochs": True}, "`epochs` is True; expected a number"),
    (AwareQuantization, {"learning_rate": "1e-3"}, "`learning_rate` is '1e-3'; expected a number, without quotes"),
    (AwareQuantization, {"bits": "4"}, "`bits` is '4'"),
    (AwareQuantization, {"layers": {"a": "4"}}, "`layers` does not fit; expected a number, without quotes"),
    (ChannelPruning, {"macs": 0.5, "recovery": {"epochs": True}}, "recovery.epochs: `epochs` is True"),
    (WeightPacking, {"functions": 1}, "`functions` is 1; expected true or false"),
    (OnnxExport, {"opset": 99}, "`opset` is 99; expected less than or equal to 25"),
    (Budget, {"size": {"max": True}}, "`max` is True"),
])  # fmt: skip
def test_what_is_of_another_kind_is_refused(model: type[BaseModel], data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings(model, data)
    assert message in str(raised.value)


def test_whole_numbers_lists_and_sizes_are_taken() -> None:
    stage = settings(AwareQuantization, {"epochs": 3.0, "learning_rate": 1, "layers": {"a": 4, "b": {"codebook": 16}}})
    assert (stage.epochs, stage.learning_rate, stage.layers["a"], stage.layers["b"].codebook) == (3, 1.0, 4, 16)
    assert settings(WeightPacking, {"opset": None, "functions": True}).functions is True
    assert settings(Budget, {"size": {"max": "40 kB"}}).size.max == 40_000
