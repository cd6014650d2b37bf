"""MACs and parameters against closed forms, on the module and on the file that would be deployed."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.forms.graph import strip
from pipeline.measure.cost import onnx_macs, onnx_params, torch_macs, torch_params
from pipeline.model import OnnxModel, TorchModel
from tests.graphs import graph, node


class Product(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


class Einsum(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("bij,bjk->bik", a, b)


class Recurrent(nn.Module):
    def __init__(self, cell: Callable[..., nn.Module], **options: int) -> None:
        super().__init__()
        self.cell = cell(6, 10, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]  # type: ignore[no-any-return]


class Twice(nn.Module):
    """One layer run twice: its parameters count once, its work twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.relu(self.layer(x)))


class Aside(nn.Module):
    """Only the linear layer multiplies and sums in a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(20, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.softmax(self.norm(self.embed(x)).mean(1), -1))  # type: ignore[no-any-return]


L, D, FF = 7, 16, 32
ENCODER = L * D * (3 * D) + 2 * L * L * D + L * D * D + 2 * L * D * FF
LSTM, GRU = 5 * 4 * 10 * (6 + 10), 5 * 3 * 10 * (6 + 10)

Case = tuple[Callable[[], nn.Module], Inputs, int, int]
PAIR = {"a": torch.rand(2, 3, 4), "b": torch.rand(2, 4, 5)}
STEPS = {"input": torch.rand(2, 5, 6)}
CASES: dict[str, Case] = {
    "linear": (lambda: nn.Linear(6, 5), {"input": torch.rand(2, 6)}, 30, 35),
    "conv, groups and stride": (
        lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
        {"input": torch.rand(2, 4, 9, 9)},
        25 * 8 * 2 * 9,
        8 * 2 * 9 + 8,
    ),
    "conv, depthwise and dilated": (
        lambda: nn.Conv1d(4, 4, 3, dilation=2, groups=4, bias=False), {"input": torch.rand(2, 4, 10)}, 6 * 4 * 3, 12,
    ),
    "transposed conv": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
        {"input": torch.rand(2, 4, 5, 5)},
        25 * 4 * 3 * 9,
        4 * 3 * 9 + 6,
    ),
    "product": (Product, PAIR, 3 * 4 * 5, 0),
    "einsum": (Einsum, PAIR, 3 * 4 * 5, 0),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(D, 4, FF, batch_first=True),
        {"input": torch.rand(2, L, D)},
        ENCODER,
        4 * D * (D + 1) + FF * (D + 1) + D * (FF + 1) + 4 * D,
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), STEPS, LSTM, 4 * 10 * (6 + 10 + 2)),
    "lstm, two layers both ways": (
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
        STEPS,
        2 * LSTM + 2 * 5 * 4 * 10 * (20 + 10),
        2 * 4 * 10 * (6 + 10 + 2) + 2 * 4 * 10 * (20 + 10 + 2),
    ),
    "gru": (lambda: Recurrent(nn.GRU), STEPS, GRU, 3 * 10 * (6 + 10 + 2)),
    "twice": (Twice, {"input": torch.rand(2, 6)}, 72, 42),
    "aside": (Aside, {"input": torch.randint(0, 20, (2, 5))}, 24, 20 * 8 + 16 + 27),
}  # fmt: skip

# Float constants that the exporter makes, such as a scale, look like weights in the graph.
CONSTANTS = 2


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., OnnxModel]:
    """Each case as a file, made once; random biases, for the exporter drops those that are zero."""
    made: dict[tuple[str, int], OnnxModel] = {}

    def get(name: str, opset: int = 20) -> OnnxModel:
        if (name, opset) not in made:
            module, example, _, _ = CASES[name]
            torch.manual_seed(0)
            model = TorchModel(module(), example, Reference(use="torch.nn:Module"))
            for parameter in model.module.parameters():
                nn.init.uniform_(parameter)
            made[name, opset] = deploy(model, tmp_path_factory.mktemp("cost") / "model.onnx", opset)
        return made[name, opset]

    return get


@pytest.mark.parametrize("name", CASES)
def test_macs_of_a_module_are_the_closed_form(name: str) -> None:
    module, example, macs, _ = CASES[name]
    assert torch_macs(module().eval(), example) == macs


@pytest.mark.parametrize("name", CASES)
def test_macs_of_the_file_are_the_closed_form(deployed: Callable[..., OnnxModel], name: str) -> None:
    assert onnx_macs(deployed(name)) == CASES[name][2]


def test_attention_as_one_operator_is_counted(deployed: Callable[..., OnnxModel]) -> None:
    assert onnx_macs(deployed("encoder", 23)) == ENCODER


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_the_closed_form(deployed: Callable[..., OnnxModel], name: str) -> None:
    module, _, _, params = CASES[name]
    assert torch_params(module()) == params
    assert params <= onnx_params(deployed(name)) <= params + CONSTANTS


def test_tied_parameters_count_once() -> None:
    embed, head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
    head.weight = embed.weight
    assert torch_params(nn.Sequential(embed, head)) == 800


def test_macs_are_of_one_example_whatever_the_batch_of_the_example() -> None:
    layer = nn.Linear(6, 5)
    assert torch_macs(layer, {"input": torch.rand(1, 6)}) == torch_macs(layer, {"input": torch.rand(64, 6)}) == 30


def test_a_network_counts_the_same_in_both_forms(tiny: Callable[..., TorchModel], tmp_path: Path) -> None:
    model = tiny(8)
    expected = 64 * 8 * 9 + 64 * 8 * 8 * 9 + 32 * 4
    assert torch_macs(model.module, model.example) == expected
    file = deploy(model, tmp_path / "model.onnx")
    assert onnx_macs(file) == expected
    assert onnx_params(file) == torch_params(model.module) == (9 + 1) * 8 + (72 + 1) * 8 + 33 * 4


def quantized(kind: str, path: Path) -> OnnxModel:
    """A convolution of 4 to 8 channels, 3x3, on 9x9 without padding: 49 * 8 * 36 MACs, 288 weights."""
    values = {"w": torch.randint(-9, 9, (8, 4, 3, 3), dtype=torch.int8), "s": torch.tensor(0.1)}
    values |= {"z": torch.tensor(0, dtype=torch.uint8), "wz": torch.tensor(0, dtype=torch.int8)}
    nodes = {
        "QDQ": [
            node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            node("DequantizeLinear", ["w", "s", "wz"], ["dw"]),
            node("Conv", ["d", "dw"], ["y"]),
        ],
        "operator": [
            node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
            node("ConvInteger", ["q", "w", "qz", "wz"], ["i"]),
            node("Cast", ["i"], ["f"], to=onnx.TensorProto.FLOAT),
            node("Mul", ["qs", "s"], ["both"]),
            node("Mul", ["f", "both"], ["y"]),
        ],
    }[kind]
    used = {name for one in nodes for name in one.input}
    kept = {name: value for name, value in values.items() if name in used}
    onnx.save(graph(nodes, {"x": ["b", 4, 9, 9]}, {"y": ["b", 8, 7, 7]}, kept), path)
    return OnnxModel(path, {"x": torch.rand(2, 4, 9, 9)})


@pytest.mark.parametrize("kind", ["QDQ", "operator"])
def test_a_quantized_file_counts_as_its_original(tmp_path: Path, kind: str) -> None:
    model = quantized(kind, tmp_path / "q.onnx")
    assert model.predict(model.example)["y"].shape == (2, 8, 7, 7)
    assert onnx_macs(model) == 49 * 8 * 36
    assert onnx_params(model) == 288


class Tagger(torch.nn.Module):
    """An embedding, an LSTM and a wide head on the last step, whose shape ONNX's inference does not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = torch.nn.Embedding(50, 8), torch.nn.LSTM(8, 16, batch_first=True)
        self.head = torch.nn.Linear(16, 500)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embedding(x))[0][:, -1])


def test_a_shape_that_inference_cannot_tell_is_seen_and_not_counted_as_zero(tmp_path: Path) -> None:
    example = {"input": torch.randint(0, 50, (2, 12))}
    model = TorchModel(Tagger(), example, Reference(use="tests:Tagger"))
    closed_form = 12 * 4 * 16 * (8 + 16) + 16 * 500
    assert onnx_macs(deploy(model, tmp_path / "m.onnx")) == closed_form
    assert torch_macs(model.module, example) == closed_form


class Most(Tagger):
    """Its head reads the largest states, of whose shape inference knows nothing once the LSTM is quantized."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embedding(x))[0].masked_fill((x == 0).unsqueeze(2), -1.0).amax(1))


def test_a_layer_behind_a_quantized_recurrent_one_counts_as_before(tmp_path: Path) -> None:
    example = {"input": torch.randint(0, 50, (2, 12))}
    before = deploy(TorchModel(Most(), example, Reference(use="tests:Most")), tmp_path / "m.onnx")
    quantize_dynamic(before.path, tmp_path / "q.onnx", op_types_to_quantize=["LSTM"])
    graph = onnx.load(tmp_path / "q.onnx")
    strip(graph)
    onnx.save(graph, tmp_path / "q.onnx")
    assert "DynamicQuantizeLSTM" in {node.op_type for node in graph.graph.node}
    assert onnx_macs(OnnxModel(tmp_path / "q.onnx", example)) == onnx_macs(before) == 12 * 4 * 16 * (8 + 16) + 16 * 500
