"""Export: the file says what the module says, and a file that does not is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

from pipeline import deploy as deployment
from pipeline.errors import StageError
from pipeline.forms import graph
from pipeline.forms.graph import OPSET
from pipeline.model import OnnxModel, TorchModel
from stages.export.onnx import OnnxExport, compare
from tests.aliases import Make, Patch
from tests.stages.quantize.training.aware_nets import images, quantized

pytestmark = pytest.mark.anew


@pytest.fixture(params=[OPSET, 18])
def exported(request: pytest.FixtureRequest, kept: Any, tiny: Make, context: Make) -> tuple[TorchModel, OnnxModel, Any]:
    if request.param not in kept:
        model = tiny()
        file = OnnxExport(opset=request.param).run(model, context())
        kept[request.param] = (model, file, {"opset": request.param, **context.reports["parity"]})
    return kept[request.param]  # type: ignore[no-any-return]


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_the_file_gives_the_modules_outputs_at_any_batch(exported: Any, batch: int) -> None:
    model, file, _ = exported
    inputs = {"input": torch.rand(batch, 1, 8, 8, generator=torch.Generator().manual_seed(batch))}
    torch.testing.assert_close(file.predict(inputs), model.predict(inputs), rtol=1e-5, atol=1e-5)


def test_the_file_has_its_opset_and_passes_the_checker_and_parity_is_reported(exported: Any) -> None:
    _, file, parity = exported
    proto = onnx.load(file.path)
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [parity["opset"]]
    onnx.checker.check_model(proto, full_check=True)
    assert [node.name for node in proto.graph.input] == ["input"]
    assert [node.name for node in proto.graph.output] == ["output"]
    assert 0 <= parity["largest_difference"] < 1e-5
    assert parity["agreement"] == 1.0
    assert parity["examples"] == 64  # the whole validation split, which has fewer than 256


def test_the_file_of_the_stage_is_its_own(tiny: Make, context: Make) -> None:
    ctx, model = context(), tiny()
    measured = ctx.deployed(model)
    seen = [ctx.deployed(model).path, measured.path]
    assert seen[0] == seen[1]
    file = OnnxExport().run(model, replace(ctx, deployed=lambda _: measured))
    assert file.path == ctx.directory / "model.onnx"
    assert file.path.read_bytes() == measured.path.read_bytes()


def test_weights_beside_the_file_come_with_it(tiny: Make, context: Make, monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(graph, "EXTERNAL_DATA_BYTES", 1000)
    model = tiny()
    exported = OnnxExport().run(model, context(deployed=lambda given: deployment.deploy(given, tmp_path / "made.onnx")))
    assert len(exported.files()) == 2
    exported.save(tmp_path / "saved")
    torch.testing.assert_close(OnnxModel.load(tmp_path / "saved").predict(model.example), model.predict(model.example))


class Shifted:
    """A file whose outputs are off by `error`; stands for one that was exported wrongly."""

    def __init__(self, file: OnnxModel, error: float) -> None:
        self.file, self.error = file, error

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value + self.error for name, value in self.file.predict(inputs).items()}


@pytest.mark.parametrize("error", [0.0, 0.25, float("nan")])
def test_compare_measures_a_difference_relative_to_one_plus_value(exported: Any, context: Make, error: float) -> None:
    model, file, _ = exported
    ctx = context()
    found = compare(model, Shifted(file, error), ctx, 10)  # type: ignore[arg-type]
    inputs = {"input": torch.stack([ctx.validation[i][0]["input"] for i in range(10)])}
    expected = float((error / (1 + model.predict(inputs)["output"].abs())).max())
    difference = float("inf") if error != error else expected
    assert found["largest_difference"] == pytest.approx(difference, rel=1e-4, abs=1e-5)
    assert found["examples"] == 10


@pytest.mark.parametrize("error", [0.25, float("nan")])
def test_a_file_that_differs_a_lot_is_refused(context: Make, monkeypatch: Patch, exported: Any, error: float) -> None:
    predict = OnnxModel.predict
    monkeypatch.setattr(OnnxModel, "predict", lambda s, i: {n: v + error for n, v in predict(s, i).items()})
    model, file, _ = exported
    with pytest.raises(StageError, match=r"from torch's by (2\.\d\de-01|inf); expected at most 1e-04\. Look for"):
        OnnxExport().run(model, context(deployed=lambda _: file))
    assert context.reports["parity"]["largest_difference"] > 0.1  # what was found is in the record all the same


def test_a_tolerance_below_float_rounding_refuses_a_good_file(exported: Any, context: Make) -> None:
    model, file, _ = exported
    with pytest.raises(StageError, match=r"by \d\.\d\de-\d\d; expected at most 1e-12"):
        OnnxExport(tolerance=1e-12).run(model, context(deployed=lambda _: file))


def test_a_quantized_model_may_differ_by_what_rounding_otherwise_moves(context: Make, monkeypatch: Patch) -> None:
    model = quantized("Residual", images())
    file = OnnxExport().run(model, context())
    parity = context.reports["parity"]
    assert parity["agreement"] == 1.0
    assert 1e-4 < parity["rounding"] < 0.5
    predict = OnnxModel.predict
    monkeypatch.setattr(OnnxModel, "predict", lambda s, i: {n: v * 2 for n, v in predict(s, i).items()})
    with pytest.raises(StageError, match="ONNX Runtime's outputs differ from torch's"):
        OnnxExport().run(model, context(deployed=lambda _: file))
