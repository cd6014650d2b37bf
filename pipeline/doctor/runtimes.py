"""Which runtimes are here, as their packages say; only ONNX Runtime, which is quick to import, is asked itself."""

from collections.abc import Iterable

from pipeline.doctor.finding import Finding
from pipeline.doctor.packages import version

CONCERN = "runtimes"

RUNTIMES = {
    "OpenVINO": "openvino",
    "ExecuTorch": "executorch",
    "LiteRT": "ai-edge-litert",
    "ncnn": "ncnn",
    "MNN": "MNN",
    "TensorRT": "tensorrt",
}
"""Runtimes by the distribution that brings them."""


def runtimes() -> Iterable[Finding]:
    """ONNX Runtime with its providers, and a row for each of the others."""
    yield onnxruntime_providers()
    for name, distribution in RUNTIMES.items():
        number = version(distribution)
        text = f"{distribution} {number}" if number else "not installed; no stage asks for it"
        yield Finding(CONCERN, name, "ok" if number else "note", text)


def onnxruntime_providers() -> Finding:
    """What ONNX Runtime can run on here."""
    try:
        import onnxruntime
    except ImportError as error:
        return Finding(CONCERN, "ONNX Runtime", "missing", f"it cannot be imported: {error}", "pip install onnxruntime")
    names = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    if "CPU" not in names:  # every figure of ours is of it
        fix = "Install a build of onnxruntime with the CPU provider"
        return Finding(CONCERN, "ONNX Runtime", "missing", f"providers: {', '.join(names) or 'none'}", fix)
    return Finding(CONCERN, "ONNX Runtime", "ok", f"{onnxruntime.__version__}; providers: {', '.join(names)}")
