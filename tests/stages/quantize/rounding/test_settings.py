from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.model import OnnxModel
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.static import StaticQuantization
from tests.contexts import preview_of


@pytest.mark.parametrize(("stage", "message"), [
    (StaticQuantization(bits=4, codebook=16), "`bits` is 4 and `codebook` is 16.*Leave one out"),
    (DynamicQuantization(bits="ternary", codebook=4), "`bits` is ternary and `codebook` is 4"),
    (DynamicQuantization(bits=4, examples=100), "`examples` is given, and rounding: nearest reads no calibration data"),
])  # fmt: skip
def test_settings_that_contradict_each_other_are_refused_before_work(stage: Any, message: str) -> None:
    preview = preview_of(OnnxModel(Path("x.onnx"), {}), 512)
    with pytest.raises(ConfigError, match=message):
        list(stage.check([], preview))


@pytest.mark.parametrize("settings", [
    {"bits": 1}, {"bits": 9}, {"bits": "binary"}, {"codebook": 1}, {"codebook": 257}, {"layers": {"conv1": 16}},
    {"layers": {"conv1": {"codebook": 1}}}, {"layers": {"conv1": {"bits": 4}}}, {"first_last": 1}, {"rounding": "up"},
])  # fmt: skip
def test_bits_that_there_are_not_are_refused(settings: Any) -> None:
    for stage in (StaticQuantization, DynamicQuantization):
        with pytest.raises(ValidationError):
            stage(**settings)


def test_few_examples_are_worth_a_warning_where_they_are_read() -> None:
    preview = preview_of(OnnxModel(Path("x.onnx"), {}), 512)
    stages = [DynamicQuantization(rounding="adaptive", examples=50), DynamicQuantization(rounding="adaptive")]
    warnings = [[text for text in stage.check([], preview) if "calibration" in text] for stage in stages]
    assert ["uses 50 examples of 512" in text for text in warnings[0]] == [True]
    assert warnings[1] == []
