"""Models for runtimes of small devices, and how these answer beside ONNX Runtime."""

import json
import subprocess
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.model import Model, OnnxModel, TorchModel
from stages.benchmark.environments.separate import SeparateRuntime
from stages.benchmark.runners.loaded import read_batches, write_batches
from stages.quantize.static import StaticQuantization


def made(runtime: SeparateRuntime) -> Any:
    """Skips tests where the environment of a runtime is not made."""
    return pytest.mark.skipif(runtime.missing() is not None, reason=f"{runtime.name}: {runtime.missing()}")


class Words(nn.Module):
    """Attention over tokens, behind an embedding; the mask is the first input that it reads: (N, 6) twice -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(50, 16), nn.LayerNorm(16)
        self.query, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, attention_mask: Tensor, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        scores = self.query(x) @ x.transpose(1, 2) + (attention_mask[:, None].float() - 1) * 1e4
        return self.head(self.norm(x + scores.softmax(-1) @ x)[:, 0])


def words() -> TorchModel:
    """An untrained one. The names of its inputs are not in the order in which converters sort them."""
    torch.manual_seed(0)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    example = {"attention_mask": mask, "input_ids": torch.randint(0, 50, (2, 6))}
    return TorchModel.build(Reference(use="edge.py:Words", folder=Path(__file__).parent), example)


def quantized(model: TorchModel, ctx: Context, activations: str = "uint8") -> tuple[OnnxModel, float]:
    """Its int8 file, and a step of its output."""
    settings = {"activations": activations}
    file = StaticQuantization.model_validate(settings).run(ctx.deployed(model), ctx)
    graph = onnx.load(file.path).graph
    (last,) = (node for node in graph.node if graph.output[0].name in node.output)
    steps = {tensor.name: float(onnx.numpy_helper.to_array(tensor).max()) for tensor in graph.initializer}
    return file, steps[last.input[1]]


def repeated(model: Model, batch: int) -> Inputs:
    """So many examples of inputs."""
    return {name: value[torch.arange(batch) % len(value)] for name, value in model.example.items()}


def difference(
    runtime: SeparateRuntime, model: Model, ctx: Context, folder: Path, *batches: int, precision: str = "f32"
) -> float:
    """The largest between the model's outputs for batches and what the runtime answers, in processes of its own.

    Args:
        folder: for what it is converted to, once, for the last of the batches.
        precision: that the processes are to tell.
    """
    told = runtime.convert(model, ctx, folder, batches[-1])
    return max(_difference(runtime, model, ctx, told, batch, precision) for batch in batches)


def _difference(
    runtime: SeparateRuntime, model: Model, ctx: Context, told: dict[str, Any], batch: int, precision: str
) -> float:
    folder = Path(told["model"]).parent / f"answers-{batch}"
    folder.mkdir()
    paths = {name: folder / f"{name}.npz" for name in ("batches", "answers", "result", "spec")}
    inputs = repeated(model, batch)
    feeds = [{name: value.numpy() for name, value in feed.items()} for feed in runtime.batches(model, ctx, inputs)]
    write_batches(feeds, paths["batches"])
    spec = {"threads": 1, **told, **{name: str(path) for name, path in paths.items()}}
    paths["spec"].write_text(json.dumps(spec))
    command = [runtime.python, "-m", "stages.benchmark.runners.child", str(paths["spec"])]
    ended = subprocess.run(command, cwd=told["root"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    description = json.loads(paths["result"].read_text())["description"]
    facts = {"version": runtime.version(), "threads": 1, "precision": precision}
    assert {name: description[name] for name in facts} == facts
    (outputs,) = read_batches(paths["answers"])
    expected = model.predict(inputs)
    assert [*outputs] == [*expected]
    assert all(outputs[name].shape == value.shape for name, value in expected.items())
    return max(float((torch.from_numpy(outputs[name]) - value).abs().max()) for name, value in expected.items())
