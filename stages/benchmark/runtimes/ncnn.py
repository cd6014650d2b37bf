"""ncnn."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import JsonValue

from pipeline.base.batches import Inputs
from pipeline.base.files import link
from pipeline.context import Context
from pipeline.model import Model
from stages.benchmark.environments.environment import Environment
from stages.benchmark.environments.separate import SeparateRuntime
from stages.benchmark.environments.sources import Graphs, Source

KINDS = {"float32": "f32", "float64": "f64", "float16": "f16", "int64": "i64", "int32": "i32", "int8": "i8"}


class Ncnn(SeparateRuntime):
    """The fp32 ONNX file on the CPU, converted by pnnx.

    Choose it for convolutional networks on phones and boards. It has no embeddings by Gather and no quantized files.
    """

    runner: ClassVar[str] = "edge.ncnn"
    source: ClassVar[Source] = Graphs()
    file: ClassVar[str] = "model.param"
    environment: ClassVar[Environment] = Environment("ncnn", "ncnn", ("ncnn",))

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """Two files for inputs of the example's shape, with any number of examples."""
        deployed: Any = ctx.deployed(model)
        own = folder / "source"
        link(deployed.path.parent, own, deployed.files())  # pnnx writes files beside what it reads
        source = {**self.source.told(model, ctx, folder, batch), "source": str(own.resolve() / deployed.path.name)}
        example = next(self.batches(model, ctx, model.example))
        shapes = ",".join(_shape(example, name) for name in source["input_names"])
        place = self.converted({**source, "shapes": shapes}, folder)
        return {**place, "files": [str(folder.resolve() / f"model.{kind}") for kind in ("param", "bin")]}


def _shape(example: Inputs, name: str) -> str:
    """As pnnx reads it, of one example: the others it adds itself."""
    sizes = ",".join(map(str, (1, *example[name].shape[1:])))
    return f"[{sizes}]{KINDS[str(example[name].dtype).removeprefix('torch.')]}"
