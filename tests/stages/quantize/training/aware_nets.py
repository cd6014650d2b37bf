"""Networks that are quantized in tests, and what ONNX Runtime makes of their files."""

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.model import TorchModel
from pipeline.task import Split
from stages.quantize.aware import prepared
from stages.quantize.training.module import USE, part_of
from stages.quantize.training.ranges import calibrate


class Residual(nn.Module):
    """Convolutions with batch norms, clips, a sum, max and global average pooling: (N, 1, 8, 8) -> (N, 4)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.hidden, self.head = nn.Linear(width, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu6(self.norm1(self.conv1(x))), 2)
        y = self.norm3(self.conv3(self.relu(self.norm2(self.conv2(x)))))
        y += x
        y = F.adaptive_avg_pool2d(self.relu(y), 1).flatten(1)
        return self.head(torch.relu(self.hidden(y)))


class Encoder(nn.Module):
    """A transformer of torch over the rows of an image: (N, 1, 8, 8) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Linear(8, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.rows(x[:, 0])).mean(1))


class Recurrent(nn.Module):
    """An LSTM over the rows of an image: (N, 1, 8, 8) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 10, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x[:, 0])[0][:, -1])


class Bag(nn.Module):
    """The mean of embeddings of ids: (N, L) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(50, 12), nn.Linear(12, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids).mean(1))


class Tied(nn.Module):
    """Embeddings whose table also gives the output: (N, L) -> (N, L, 20)."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.output = nn.Embedding(20, 12), nn.Linear(12, 20, bias=False)
        self.output.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.output(torch.tanh(self.table(ids)))


class Shared(nn.Module):
    """A convolution and a linear layer that are used twice, this one with two and with three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.inner, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(torch.relu(self.conv(x))))[:, 0]
        return self.head(torch.relu(self.inner(self.inner(x).mean(1))))


class Scaled(nn.Module):
    """A product with a weight of its own, times 2, plus half a bias: (N, 1, 8, 8) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(64, 4)), nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(1), self.weight, beta=0.5, alpha=2)


def images(count: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def model_of(name: str, example: Inputs | None = None, **arguments: int) -> TorchModel:
    """One of these networks, with statistics in its batch norms."""
    torch.manual_seed(0)
    reference = Reference(use=f"aware_nets.py:{name}", arguments=arguments, folder=Path(__file__).parent)
    model = TorchModel.build(reference, example or {"input": images(4)})
    for parameter in model.module.parameters():
        if parameter.dim() == 1 and not parameter.any():
            parameter.data = torch.rand(parameter.shape) * 0.2  # equal biases would be one in a file
    for part in model.module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features) * 0.2
            part.running_var = torch.rand(part.num_features) + 0.5
            part.weight.data = torch.rand(part.num_features) + 0.5
    return model


def quantized(name: str, data: Tensor, scheme: int | str = 4, activations: str = "uint8") -> TorchModel:
    """A network with ranges from data, as it is before its training."""
    folded, plan = prepared(model_of(name, {"input": data[:4]}))
    schemes = dict.fromkeys(plan.axes, scheme)
    model = folded.edited(USE, plan=plan.to_json(), schemes=schemes, activations=activations)
    part = part_of(model.module)
    calibrate(model.module, part, Split([(x, 0) for x in data]).loader(64), "mse", 99.9)
    part.start(dict(model.module.named_parameters()))
    return model


def kernels(path: Path) -> Counter[str]:
    """The operators of a file as ONNX Runtime computes them."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
