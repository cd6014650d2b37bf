"""LiteRT."""

from typing import ClassVar

from stages.benchmark.environments.environment import Environment
from stages.benchmark.environments.separate import SeparateRuntime
from stages.benchmark.environments.sources import Programs, Source


class LiteRT(SeparateRuntime):
    """The model on the CPU, as a .tflite file: in fp32, or in int8 with the integers and scales of a quantized file.

    Choose it for Android and for boards that have TensorFlow Lite. Its environment takes a gigabyte.
    """

    fixed_batch: ClassVar[bool] = True
    runner: ClassVar[str] = "edge.litert"
    source: ClassVar[Source] = Programs()
    file: ClassVar[str] = "model.tflite"
    environment: ClassVar[Environment] = Environment(
        "litert", "ai-edge-litert", ("ai_edge_litert.interpreter", "litert_torch"), torch="2.13"
    )
