"""TensorRT, by ONNX Runtime."""

from pathlib import Path
from typing import ClassVar

from stages.benchmark.runtimes.onnxruntime_cuda import CudaOnnxRuntime


class TensorRt(CudaOnnxRuntime):
    """The deployed ONNX file in ONNX Runtime's TensorRT provider, with the copies of its inputs and outputs.

    Choose it for servers with a GPU of NVIDIA's where an engine may be built for minutes. It is kept for the other
    processes of the stage, so only the first of them builds.
    """

    command: ClassVar[str] = "pip install onnxruntime-gpu tensorrt"
    providers: ClassVar[tuple[str, ...]] = ("TensorrtExecutionProvider", *CudaOnnxRuntime.providers)

    def _options(self, folder: Path, *, rounds: bool) -> dict[str, dict[str, str]]:
        """With the folder where engines are kept; the nodes of an int8 file alone run in integers."""
        engines = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str((folder / "engines").resolve())}
        engines |= {"trt_int8_enable": "1"} if rounds else {}
        return {**super()._options(folder, rounds=rounds), self.providers[0]: engines}
