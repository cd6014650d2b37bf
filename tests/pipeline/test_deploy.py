"""The file to deploy: any batch, the task's names, nothing beside the graph, and every time the same."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.errors import StageError
from pipeline.forms import graph
from pipeline.measure.size import elements, payload_bytes, size_bytes
from pipeline.model import OnnxModel, TorchModel
from tests import graphs
from tests.aliases import Make, Patch

pytestmark = pytest.mark.anew

X = {"input": torch.rand(2, 6)}


def torch_model(module: nn.Module, example: Inputs) -> TorchModel:
    return TorchModel(module, example, Reference(use="torch.nn:Module"))


class Several(nn.Module):
    """Inputs in another order than the example's, outputs not sorted by name, one named as a value in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, second: Tensor, first: Tensor, scale: Tensor) -> dict[str, Tensor]:
        return {"z": self.a(first) * scale[:, None], "c": self.b(second) - first[:, :3], "scale_out": scale * 2}


class Clash(nn.Module):
    """Its output is named as the exporter names the first of the two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"linear": self.b(torch.relu(self.a(x)))}


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Larger(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2 if x.max().item() > 2 else x


class Fixed(nn.Module):
    """Works with batches of two alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 6) * 2


class Nested(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return x * 2, (x + 1, x + 2)


class OneHead(nn.Module):
    """Attention on tensors of three axes."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, :, None]
        return nn.functional.scaled_dot_product_attention(rows, rows, rows).squeeze(2)


class Projecting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(2, 4, proj_size=3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.view(-1, 3, 2))[0]


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor, **options: Tensor) -> Tensor:
        return self.inner(*inputs, **options)


class Denoiser(nn.Module):
    def forward(self, input: Tensor) -> dict[str, Tensor]:
        return {"input": input * 2}


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("not today")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchModel, OnnxModel]:
    torch.manual_seed(0)
    model = torch_model(Several(), rows(2))
    return model, deploy(model, tmp_path_factory.mktemp("several") / "model.onnx")


def rows(batch: int) -> Inputs:
    return {"first": torch.rand(batch, 4), "second": torch.rand(batch, 4), "scale": torch.rand(batch)}


def close(model: TorchModel, exported: OnnxModel, inputs: Inputs) -> bool:
    ours, theirs = exported.predict(inputs), model.predict(inputs)
    return list(ours) == list(theirs) and all(torch.allclose(ours[n], theirs[n], atol=1e-6) for n in theirs)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_inputs_and_outputs_keep_their_names_at_any_batch(several: tuple[TorchModel, OnnxModel], batch: int) -> None:
    model, exported = several
    assert [i.name for i in exported.session.get_inputs()] == ["first", "second", "scale"]
    assert [o.name for o in exported.session.get_outputs()] == ["z", "c", "scale_out"]
    assert close(model, exported, rows(batch))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_model_of_one_example_takes_a_batch(tiny: Make, tmp_path_factory: pytest.TempPathFactory, batch: int) -> None:
    path = tmp_path_factory.getbasetemp() / "tiny.onnx"
    model = tiny()
    exported = OnnxModel(path, model.example) if path.exists() else deploy(model, path)
    assert close(model, exported, {"input": torch.rand(batch, 1, 8, 8)})


def test_nothing_but_the_graph_is_left(several: tuple[TorchModel, OnnxModel]) -> None:
    proto = onnx.load(several[1].path)
    graph = proto.graph
    assert not proto.metadata_props
    assert not proto.doc_string
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        assert not part.metadata_props
        assert not part.doc_string
    assert {entry.domain for entry in proto.opset_import} == {""}
    assert str(Path(__file__).parent).encode() not in several[1].path.read_bytes()


def test_two_deploys_are_equal_to_the_byte(several: tuple[TorchModel, OnnxModel], tmp_path: Path) -> None:
    assert deploy(several[0], tmp_path / "other_name.onnx").path.read_bytes() == several[1].path.read_bytes()


@pytest.mark.parametrize("opset", [18, 25])
def test_the_opset_is_the_one_asked_for(tmp_path: Path, opset: int) -> None:
    model = torch_model(nn.Linear(6, 2), X)
    exported = deploy(model, tmp_path / "folder" / "model.onnx", opset)
    assert [entry.version for entry in onnx.load(exported.path).opset_import] == [opset]
    assert close(model, exported, {"input": torch.rand(3, 6)})


def test_deploying_leaves_the_model_as_it_was(several: tuple[TorchModel, OnnxModel], tmp_path: Path) -> None:
    model = torch_model(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout()), X)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    fast = torch.backends.mha.get_fastpath_enabled()
    deploy(model, tmp_path / "model.onnx")
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert not model.module.training
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_an_example_of_one_row_still_gives_any_batch(tmp_path: Path) -> None:
    model = torch_model(nn.Linear(6, 2), {"input": torch.rand(1, 6)})
    assert close(model, deploy(model, tmp_path / "model.onnx"), {"input": torch.rand(5, 6)})


@pytest.mark.parametrize(("module", "message"), [
    (Branch(), r"forward depends on the values of a tensor in test_deploy\.py:\d+, `return x if .*is_exporting"),
    (Larger(), r"forward depends on the values of a tensor in test_deploy\.py:\d+, `return x / 2 if .*torch\.where"),
    (Raises(), r"ONNX export: ValueError: not today\. The forward must be traceable by torch\.export"),
    (Projecting(), r"`rnn` is an LSTM with proj_size, which ONNX's LSTM does not have"),
    (Nested(), "output"),
    (Fixed(), "batch"),
], ids=["branch", "item", "raises", "proj_size", "nested", "fixed"])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_a_forward_that_cannot_be_deployed_is_an_error_in_a_sentence(
    tmp_path: Path, module: nn.Module, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StageError, match=rf"{message}") as caught:
        deploy(torch_model(module, X), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("module", [Wrapped(nn.Linear(6, 2)), nn.DataParallel(nn.Linear(6, 2)), OneHead()])
def test_wrappers_that_hand_on_and_attention_of_three_axes_are_deployed(tmp_path: Path, module: nn.Module) -> None:
    model = torch_model(module, X)
    assert close(model, deploy(model, tmp_path / "model.onnx"), {"input": torch.rand(3, 6)})


def test_an_output_with_the_name_of_an_input_has_another_in_the_file(tmp_path: Path) -> None:
    model, inputs = torch_model(Denoiser(), X), {"input": torch.rand(3, 6)}
    exported = deploy(model, tmp_path / "model.onnx").predict(inputs)
    torch.testing.assert_close(exported, {"input_out": 2 * inputs["input"]})


def test_an_output_may_be_named_as_a_value_inside_the_graph(tmp_path: Path) -> None:
    model = torch_model(Clash(), X)
    assert close(model, deploy(model, tmp_path / "model.onnx"), {"input": torch.rand(3, 6)})


def test_weights_of_a_large_graph_go_to_a_file_that_counts(tmp_path: Path, monkeypatch: Patch) -> None:
    model = torch_model(nn.Linear(6, 300), X)
    inside = deploy(model, tmp_path / "inside.onnx")
    monkeypatch.setattr(graph, "EXTERNAL_DATA_BYTES", 1000)
    outside = deploy(model, tmp_path / "outside.onnx")
    assert [p.name for p in outside.files()] == ["outside.onnx", "outside.onnx.data"]
    assert size_bytes(outside) == sum(p.stat().st_size for p in outside.files()) > 4 * 7 * 300
    assert outside.path.stat().st_size < 1500
    assert payload_bytes(outside) == payload_bytes(inside) == 4 * 7 * 300
    assert close(model, outside, X)
    assert size_bytes(deploy(model, tmp_path / "outside.onnx")) == size_bytes(outside)


@pytest.mark.parametrize(("kind", "dims", "expected"), [
    ("FLOAT", [3, 5], 60),
    ("INT8", [3, 5], 15),
    ("FLOAT16", [7], 14),
    ("INT4", [7], 4),
    ("UINT4", [2, 2], 2),
    ("FLOAT", [], 4),
])  # fmt: skip
def test_payload_counts_the_bytes_of_each_type(tmp_path: Path, kind: str, dims: list[int], expected: int) -> None:
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.DataType.Value(kind), dims=dims)
    tensor.raw_data = bytes(expected)
    onnx.save(graphs.graph([], {"x": [1]}, {"x": [1]}, [tensor]), tmp_path / "g.onnx")
    assert payload_bytes(OnnxModel(tmp_path / "g.onnx", {})) == expected
    assert elements(tensor) == torch.Size(dims).numel()
