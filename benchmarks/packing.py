"""What packed weights save and cost: bytes, latency, loading.

    python benchmarks/packing.py [--rounds 15]

A CIFAR ResNet-20, statically quantized, with drawn integers of fewer and fewer values in its weights: the packed file's
bytes over those of the file before, and its latency in ONNX Runtime over it at 1 and 2 threads, batch 1, in turns
(median, least and most). Then an encoder of MiniLM's size, dynamically quantized, with integers of a codebook and with
few values among zeros: bytes, and the time and peak of memory of fresh processes that load it, over those of the file
before.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from in_turns import compare
from torch import nn

from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.packing.candidates import candidates
from stages.quantize.packing.graph import weights_of
from stages.quantize.static import StaticQuantization
from tests.contexts import reporting_context

CONFIGS = Path(__file__).parents[1] / "configs"
WORDS, WIDTH, LAYERS, LENGTH = 30_522, 384, 6, 16
CALLS = 60
Draw = Callable[[np.random.Generator, list[int]], Any]


def of_codebook(rng: np.random.Generator, shape: list[int]) -> Any:
    """16 values of 8 bits, other ones for each tensor."""
    return rng.choice(rng.choice(np.arange(-127, 128), 16, replace=False), shape)


RESNET: dict[str, Draw] = {
    "8 bits": lambda rng, shape: rng.integers(-127, 128, shape),
    "4 bits": lambda rng, shape: rng.integers(-7, 8, shape),
    "3 bits": lambda rng, shape: rng.integers(-4, 4, shape),
    "2 bits": lambda rng, shape: rng.integers(-2, 2, shape),
    "ternary": lambda rng, shape: rng.integers(-1, 2, shape),
}
ENCODER: dict[str, Draw] = {
    "8 bits": RESNET["8 bits"],
    "4 bits": RESNET["4 bits"],
    "codebook of 16": of_codebook,
    "ternary": RESNET["ternary"],
    "a tenth, 4 bits": lambda rng, shape: rng.integers(-7, 8, shape) * (rng.random(shape) < 0.1),
    "a tenth, 8 bits": lambda rng, shape: rng.integers(-127, 128, shape) * (rng.random(shape) < 0.1),
}


class Encoder(nn.Module):
    """Tokens (N, L) -> (N, 384): a table and six layers of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 12, 4 * WIDTH, batch_first=True)
        self.table, self.layers = nn.Embedding(WORDS, WIDTH), nn.TransformerEncoder(layer, LAYERS)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The mean of the last layer."""
        return self.layers(self.table(ids)).mean(1)  # type: ignore[no-any-return]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    count = parser.parse_args().rounds
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        builder = Reference(use="models.py:ResNet", arguments={}, folder=CONFIGS / "cifar10")
        images = torch.rand(64, 3, 32, 32)
        whole = quantized(StaticQuantization(reduce_range=True), builder.call(), images, Path(folder) / "resnet")
        for name, draw in RESNET.items():
            latency(name, packed(whole, draw, Path(folder)), count)
        ids = torch.randint(0, WORDS, (4, LENGTH))
        whole = quantized(DynamicQuantization(), Encoder(), ids, Path(folder) / "encoder")
        for name, draw in ENCODER.items():
            loading(name, packed(whole, draw, Path(folder)), count)


def quantized(stage: Any, module: nn.Module, data: torch.Tensor, folder: Path) -> OnnxModel:
    """The file that a stage makes of a module."""
    example = {"input": data[:2]}
    model = deploy(TorchModel(module, example, Reference(use="x")), folder / "fp32.onnx")
    context, _ = reporting_context(folder / "quantized", Split([(row, 0) for row in data]))  # type: ignore[arg-type]
    result: OnnxModel = stage.run(model, context)
    return result


def packed(model: OnnxModel, draw: Draw, folder: Path) -> tuple[OnnxModel, OnnxModel]:
    """The file with drawn integers, and packed."""
    proto, rng = onnx.load(model.path), np.random.default_rng(0)
    names = {weight.name for weight in weights_of(proto.graph)}
    for tensor in (tensor for tensor in proto.graph.initializer if tensor.name in names):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.CopyFrom(onnx.numpy_helper.from_array(draw(rng, [*tensor.dims]).astype(dtype), tensor.name))
    paths = folder / "before.onnx", folder / "packed.onnx"
    onnx.save(proto, paths[0])
    begin = time.perf_counter()
    onnx.save(candidates(proto, None)[0].packed.proto, paths[1])
    took = time.perf_counter() - begin
    sizes = [path.stat().st_size for path in paths]
    print(f"{sizes[0]:,} -> {sizes[1]:,} bytes, {sizes[1] / sizes[0]:.3f}, packed in {took:.1f} s")
    before, after = (OnnxModel(path, model.example) for path in paths)
    return before, after


def latency(name: str, models: tuple[OnnxModel, OnnxModel], count: int) -> None:
    """Print the ratio of the latencies, and whether the outputs are equal."""
    feed = {key: value[:1].numpy() for key, value in models[0].example.items()}
    for threads in (1, 2):
        before, after = (session(model.path, threads) for model in models)
        equal = all(
            a.tobytes() == b.tobytes() for a, b in zip(before.run(None, feed), after.run(None, feed), strict=True)
        )
        label = f"{name}, {threads} thread{'s' * (threads > 1)}, equal {equal}"
        compare(label, count, lambda: seconds(after, feed), lambda: seconds(before, feed))  # noqa: B023


def session(path: Path, threads: int) -> Any:
    """A session of so many threads, which sleep between calls: else they take the cores of the other file's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def seconds(opened: Any, feed: Any) -> float:
    """The median time of some calls."""
    times = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        opened.run(None, feed)
        times.append(time.perf_counter() - begin)
    return median(times)


def loading(name: str, models: tuple[OnnxModel, OnnxModel], count: int) -> None:
    """Print what fresh processes, in turns, take to load the files."""
    times: list[list[float]] = [[], []]
    peaks: list[list[int]] = [[], []]
    for _ in range(count):
        for i, model in enumerate(models):
            child = model.child
            times[i].append(child.load_ms)
            peaks[i].append(child.peak_bytes or 0)
            model.close()
    ratios = [after / before for before, after in zip(*times, strict=True)]
    load, peak = ([median(some) for some in pair] for pair in (times, peaks))
    spread = f"{median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"
    print(
        f"{name:20} load {load[0]:.0f} -> {load[1]:.0f} ms, {spread}; "
        f"peak {peak[0] / 1e6:.0f} -> {peak[1] / 1e6:.0f} MB, {peak[1] / peak[0]:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
