"""MNN."""

from typing import ClassVar

from stages.benchmark.environments.environment import Environment
from stages.benchmark.environments.separate import SeparateRuntime
from stages.benchmark.environments.sources import Graphs, Source


class Mnn(SeparateRuntime):
    """The fp32 ONNX file on the CPU, converted by MNN.

    Choose it for phones, also for transformers. It does not take quantized files.
    """

    runner: ClassVar[str] = "edge.mnn"
    source: ClassVar[Source] = Graphs()
    file: ClassVar[str] = "model.mnn"
    environment: ClassVar[Environment] = Environment("mnn", "mnn", ("MNN", "_tools"))
