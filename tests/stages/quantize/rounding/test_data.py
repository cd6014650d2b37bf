from pathlib import Path

import pytest
import torch

from pipeline.errors import StageError
from pipeline.task import Split
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.static import StaticQuantization
from tests.contexts import reporting_context
from tests.graphs import products


@pytest.mark.parametrize("stage", [
    StaticQuantization(), StaticQuantization(calibration="mse"), DynamicQuantization(rounding="adaptive"),
])  # fmt: skip
def test_calibration_data_with_nan_are_refused(stage: StaticQuantization, tmp_path: Path) -> None:
    data = torch.rand(150, 32)
    data[70, 3] = torch.nan
    ctx, _ = reporting_context(tmp_path / "stage", Split([(x, 0) for x in data]))  # type: ignore[arg-type]
    with pytest.raises(StageError, match="the calibration data have NaN in `input`, among examples 64 to 127"):
        stage.run(products(tmp_path / "net.onnx", 2), ctx)
    assert list((tmp_path / "stage").iterdir()) == []
