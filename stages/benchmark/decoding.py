"""Whether ONNX Runtime decodes packed weights at each call: `python -m stages.benchmark.decoding FILE`."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from pipeline.errors import ResourceError, StageError
from pipeline.forms.graph import QDQ
from pipeline.forms.packed import is_packed
from stages.benchmark.processes.module import run_module

DECODES = (
    "ONNX Runtime decodes weights of this file at each call, for it does not fold their decoder: the latency has that "
    "in it. Leave quantize.pack out for this runtime, or measure the file before it"
)
UNKNOWN = (
    "whether ONNX Runtime decodes weights of this file at each call, which the latency would have in it, is not known"
)


def decoding_warning(path: Path) -> str:
    """What to warn of where a file is packed: that it stays so in ONNX Runtime, or why that is not known; else "".

    A fresh process tells.
    """
    if path.is_dir():
        return ""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:  # the process that times it says what is wrong with it
        return ""
    if not is_packed(graph):
        return ""
    try:
        last = run_module("stages.benchmark.decoding", [path.resolve()], "the process that looks")
    except (StageError, ResourceError) as error:
        return f"{UNKNOWN}: {error}"
    return DECODES if last.endswith("True") else ""


def stays_packed(path: Path) -> bool:
    """Whether the graph that ONNX Runtime makes of a file still decodes weights."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.data")
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(target, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    computing = [node for node in graph.node if node.input and constants.issuperset(node.input)]
    return any(node.op_type not in QDQ for node in computing)


if __name__ == "__main__":
    sys.stdout.write(str(stays_packed(Path(sys.argv[1]))))
