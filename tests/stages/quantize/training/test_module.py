from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from pipeline.deploy import deploy
from pipeline.errors import StageError
from pipeline.measure.cost import onnx_macs, onnx_params, torch_macs, torch_params
from pipeline.model import OnnxModel, TorchModel, call
from stages.quantize.training.forward.placement import plan_of
from stages.quantize.training.module import USE, part_of, quantize
from stages.trainer.settings import TrainingSettings, make_optimizer
from tests.stages.quantize.training.aware_nets import images, kernels, quantized

IDS = torch.randint(0, 20, (300, 6), generator=torch.Generator().manual_seed(0))
INTEGER = {"QLinearConv", "QGemm", "MatMulIntegerToFloat"}
PRODUCTS = INTEGER | {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


def exported(model: TorchModel, data: Tensor, folder: Path) -> tuple[OnnxModel, Tensor, Tensor]:
    """The file, and what torch and ONNX Runtime make of the data."""
    file = deploy(model, folder / "model.onnx")
    ours, theirs = (one.predict({"input": data})["output"] for one in (model, file))
    return file, ours, theirs


def agreement(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.argmax(-1) == theirs.argmax(-1)).float().mean())


@pytest.mark.parametrize("scheme", [8, "ternary", "codebook8"])
def test_a_residual_network_runs_in_integers_as_it_was_trained(scheme: int | str, tmp_path: Path) -> None:
    data = images(2000)
    model = quantized("Residual", data[:128], scheme)
    file, ours, theirs = exported(model, data, tmp_path)
    assert agreement(ours, theirs) >= 0.999
    assert float(((ours - theirs).abs().amax(1) > 1e-4).float().mean()) < 0.02
    counts = kernels(file.path)
    assert {name: count for name, count in counts.items() if name in PRODUCTS} == {"QLinearConv": 3, "QGemm": 2}
    assert counts["QLinearAdd"] == 1
    assert counts["Relu"] == counts["Clip"] == 0
    assert torch_params(model.module) == pytest.approx(onnx_params(file), rel=0.01)
    assert torch_macs(model.module, model.example) == onnx_macs(file)


def test_the_files_integers_are_those_of_the_training(tmp_path: Path) -> None:
    model = quantized("Residual", images())
    graph = onnx.load(deploy(model, tmp_path / "model.onnx").path).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    part, core = part_of(model.module), model.module
    for name, number in part.names.items():
        integers = part.weights[number].integers(core.get_parameter(name))
        assert torch.equal(torch.from_numpy(tensors[f"{name}_codes"].copy()), integers.codes)


def test_signed_activations_are_written_as_int8(tmp_path: Path) -> None:
    data = images(500)
    file, ours, theirs = exported(quantized("Residual", data, activations="int8"), data, tmp_path)
    assert agreement(ours, theirs) >= 0.996
    graph = onnx.load(file.path).graph
    types = {tensor.data_type for tensor in graph.initializer if "zero_point" in tensor.name}
    assert types == {onnx.TensorProto.INT8}


def test_an_encoder_multiplies_with_weights_in_integers(tmp_path: Path) -> None:
    data = images(1000)
    model = quantized("Encoder", data[:128])
    file, ours, theirs = exported(model, data, tmp_path)
    assert agreement(ours, theirs) >= 0.999
    counts = kernels(file.path)
    assert counts["MatMulIntegerToFloat"] + counts["QGemm"] == 6
    assert torch_params(model.module) == pytest.approx(onnx_params(file), rel=0.01)


def test_layers_that_are_used_twice_are_written_as_each_use_reads_them(tmp_path: Path) -> None:
    data = images(300)
    file, ours, theirs = exported(quantized("Shared", data[:128]), data, tmp_path)
    assert float(((ours - theirs).abs().amax(1) > 1e-4).float().mean()) < 0.05
    counts = kernels(file.path)
    assert {name: count for name, count in counts.items() if name in PRODUCTS} == {
        "QLinearConv": 2, "QGemm": 2, "MatMulIntegerToFloat": 1,
    }  # fmt: skip


def test_the_factors_of_addmm_are_written(tmp_path: Path) -> None:
    file, ours, theirs = exported(quantized("Scaled", images()), images(), tmp_path)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert kernels(file.path)["QGemm"] == 1


def test_an_lstm_has_its_weights_in_8_bits_and_computes_in_floats(tmp_path: Path) -> None:
    data = images(500)
    file, ours, theirs = exported(quantized("Recurrent", data[:128]), data, tmp_path)
    assert agreement(ours, theirs) >= 0.998
    floats = [t for t in onnx.load(file.path).graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert max(numpy_helper.to_array(t).size for t in floats) <= 160  # biases and steps
    assert kernels(file.path)["LSTM"] == 1


@pytest.mark.parametrize("name", ["Bag", "Tied"])
def test_rows_of_a_table_are_taken_as_integers(name: str, tmp_path: Path) -> None:
    file, ours, theirs = exported(quantized(name, IDS), IDS, tmp_path)
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=0)
    assert agreement(ours, theirs) >= 0.998
    graph = onnx.load(file.path).graph
    (gather, *_) = [node for node in graph.node if node.op_type == "Gather"]
    tables = {t.name: t.data_type for t in graph.initializer}
    assert tables[gather.input[0]] == onnx.TensorProto.INT8


def test_a_saved_one_is_the_same_to_the_bit(tmp_path: Path) -> None:
    model = quantized("Residual", images())
    model.save(tmp_path)
    loaded = TorchModel.load(tmp_path, Path(__file__).parent)
    assert torch.equal(loaded.predict(model.example)["output"], model.predict(model.example)["output"])


@pytest.mark.parametrize("scheme", [4, "codebook8"])
def test_weights_steps_and_codebooks_are_all_trained(scheme: int | str) -> None:
    model = quantized("Residual", images(), scheme)
    parameters = dict(model.module.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = make_optimizer(model.module, TrainingSettings(weight_decay=0.5))
    for _ in range(2):
        optimizer.zero_grad()
        call(model.module, {"input": images(32, seed=1)})["output"].square().sum().backward()
        optimizer.step()
    assert not [name for name, parameter in parameters.items() if torch.equal(parameter, before[name])]
    steps = [name for name in parameters if name.endswith("log_step")]
    assert len(steps) == 7 + 5
    assert all((parameters[name] - before[name]).abs().max() < 2.1e-3 for name in steps)  # by the rate, without decay


class Changing(nn.Module):
    """Another number of calls in training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.more = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.more(x) if self.training else x


def test_a_forward_with_other_calls_is_an_error() -> None:
    inputs = {"input": images(4)}
    module = Changing().eval()
    plan = plan_of(module, inputs)
    changed = quantize(module, plan.to_json(), dict.fromkeys(plan.axes, 8), "uint8")
    call(changed, inputs)
    quantized_too = Changing().train()
    both = plan_of(quantized_too, inputs)
    other = quantize(quantized_too.eval(), both.to_json(), dict.fromkeys(both.axes, 8), "uint8")
    with pytest.raises(StageError, match=r"the forward ended after 1 quantized calls.*more\.weight"):
        call(other, inputs)


def test_a_module_is_quantized_once() -> None:
    model = quantized("Bag", IDS)
    arguments = model.edits[-1].arguments
    with pytest.raises(StageError, match="not quantized"):
        model.edited(USE, **arguments)


def test_values_rounded_otherwise_move_the_outputs_a_little_and_for_a_while() -> None:
    model = quantized("Residual", images())
    before = model.predict(model.example)["output"]
    with model.module.rounded_otherwise():  # type: ignore[operator]
        moved = model.predict(model.example)["output"]
    assert not torch.equal(before, moved)
    assert float((before - moved).abs().max()) < 0.3 * float(before.std())
    assert torch.equal(model.predict(model.example)["output"], before)
