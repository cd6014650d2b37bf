from collections import Counter
from pathlib import Path

import pytest
import torch

from pipeline.forms.sandbox import session
from pipeline.model import OnnxModel
from stages.quantize.packing import proof
from stages.quantize.packing.proof import Behaviour, behaviour, difference, loading, operators
from tests.graphs import products
from tests.packing import ternary

ONE = Behaviour([{"y": "a"}, {"y": "b"}], Counter({"QLinearConv": 2, "Cast": 1}))


def test_what_differs_is_said() -> None:
    assert difference(ONE, ONE) == ""
    other = Behaviour(ONE.outputs, Counter({"QLinearConv": 1, "Conv": 1, "Cast": 1}))
    assert difference(ONE, other) == "ONNX Runtime runs other operators: 1 QLinearConv less and 1 Conv more"
    assert "differs for batch 1" in difference(ONE, Behaviour([{"y": "a"}, {"y": "c"}], ONE.operators))
    assert "its output `y` differs for batch 0" in difference(ONE, Behaviour([{"x": "a"}, {"y": "b"}], ONE.operators))


@pytest.mark.parametrize("other", [0.0, -0.0, float("nan")])
def test_outputs_are_compared_to_the_bit(other: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = products(tmp_path / "net.onnx", 1)
    outputs = [{"y": torch.tensor([value, 1.0])} for value in (0.0, other)]
    monkeypatch.setattr(OnnxModel, "predict", lambda *_: outputs.pop(0))
    before, after = (behaviour(model, [{}]) for _ in range(2))
    assert (difference(before, after) == "") == (str(other) == "0.0")


def test_operators_are_those_that_run(tmp_path: Path) -> None:
    assert operators(ternary(tmp_path / "packed.onnx")) == {"Gather": 1, "DequantizeLinear": 1}


def test_loading_is_measured_in_processes_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "ROUNDS", 1)
    one, other = products(tmp_path / "one.onnx", 1), products(tmp_path / "other.onnx", 2)
    figures = loading(one, other)
    assert all(figures[key][side] > 0 for key in ("load_ms", "peak_bytes") for side in ("before", "after"))  # type: ignore[index, operator, call-overload]

    class Silent(session.Child):
        peak_bytes = property(lambda self: None, lambda self, value: None)  # type: ignore[assignment]

    monkeypatch.setattr("pipeline.forms.deployed.onnx_model.Child", Silent)
    figures = loading(one, other)
    assert figures["peak_bytes"] is None
    assert "does not tell" in str(figures["peak_bytes_reason"])
