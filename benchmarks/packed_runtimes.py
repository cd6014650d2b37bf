"""What other runtimes make of a file with packed weights, beside the int8 file that it was made of.

    python benchmarks/packed_runtimes.py int8.onnx packed.onnx

Runs in any environment with numpy, onnx and those of onnxruntime, openvino, ncnn with pnnx, and MNN that shall be
tried; each in a process of its own, since converters abort. Files have one input, whose first axis is the batch.

Printed for each runtime: whether it runs each file, the largest difference between its answers to the two, and how many
operators it runs at each call, constants aside: decoders that are not folded are among them.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

PATIENCE = 300  # seconds


class Answer(NamedTuple):
    """What a runtime answers, and how many operators it runs for it; None where it does not tell."""

    output: Any
    operators: int | None


def onnxruntime(path: Path, x: Any, folder: Path) -> Answer:
    """ONNX Runtime on the file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    output = session.run(None, {session.get_inputs()[0].name: x})[0]
    return Answer(output, len(onnx.load(folder / "optimized.onnx").graph.node))


def ort_format(path: Path, x: Any, folder: Path) -> Answer:
    """ONNX Runtime on the file in its own format, whose bytes are printed: constants are folded in it."""
    import onnxruntime as ort

    shutil.copy(path, folder / "net.onnx")
    tool = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", str(folder)]
    subprocess.run([*tool, "--optimization_style", "Fixed"], check=True, capture_output=True)
    session = ort.InferenceSession(folder / "net.ort")
    print(f"  {path.name} as .ort: {(folder / 'net.ort').stat().st_size:,} bytes")
    return Answer(session.run(None, {session.get_inputs()[0].name: x})[0], None)


def openvino(path: Path, x: Any, folder: Path) -> Answer:
    """OpenVINO with fp32 where nothing is quantized."""
    import openvino as ov

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = ov.Core().compile_model(str(path), "CPU", hints)
    kinds = [op.get_rt_info()["layerType"].value for op in compiled.get_runtime_model().get_ops()]
    running = [kind for kind in kinds if kind not in ("Const", "Input", "Output")]
    return Answer(compiled(x)[0], len(running))


def ncnn(path: Path, x: Any, folder: Path) -> Answer:
    """ncnn on what pnnx converts."""
    import ncnn as runtime

    shutil.copy(path, folder / "net.onnx")
    shape = ",".join(map(str, (1, *x.shape[1:])))
    tool = [str(Path(sys.executable).with_name("pnnx")), "net.onnx", "fp16=0", f"inputshape=[{shape}]"]
    subprocess.run(tool, cwd=folder, check=True, capture_output=True)
    net = runtime.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = 1, False
    if net.load_param(str(folder / "net.ncnn.param")) or net.load_model(str(folder / "net.ncnn.bin")):
        raise RuntimeError("ncnn does not load what pnnx wrote")
    extractor = net.create_extractor()
    if extractor.input("in0", runtime.Mat(x[:1], batch_index=0).clone()):
        raise RuntimeError("ncnn has no input in what pnnx wrote")
    code, output = extractor.extract("out0")
    if code:
        raise RuntimeError(f"ncnn gives {code}")
    return Answer(output.numpy(batch_index=0), None)


def mnn(path: Path, x: Any, folder: Path) -> Answer:
    """MNN on what its converter makes."""
    import _tools
    import MNN

    target = folder / "net.mnn"
    _tools.mnnconvert(
        ["mnnconvert", "-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(target), "--bizCode", "x"]
    )
    if not target.exists():
        raise RuntimeError("the converter wrote no file")
    net = MNN.nn.load_module_from_file(str(target), [], [])
    return Answer(np.array(net.forward(MNN.numpy.array(x)).read()), None)


RUNTIMES: tuple[Callable[[Path, Any, Path], Answer], ...] = (onnxruntime, ort_format, openvino, ncnn, mnn)


def in_child(runtime: Callable[[Path, Any, Path], Answer], path: Path, x: Any, to: Connection) -> None:
    """Send what a runtime answers, or why it does not."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            to.send(runtime(path, x, Path(folder)))
        except ImportError as error:
            to.send(f"not here ({error.name})")
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            to.send(f"{str(error).strip().splitlines()[0][:120]}")


def asked(runtime: Callable[[Path, Any, Path], Answer], path: Path, x: Any) -> Answer | str:
    """What a runtime answers, or why it does not."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=in_child, args=(runtime, path, x, sender))
    child.start()
    sender.close()
    try:
        answer: Answer | str = receiver.recv() if receiver.poll(PATIENCE) else "no answer"
    except EOFError:
        answer = "its process died"
    child.kill()
    child.join()
    return answer


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("int8", type=Path)
    parser.add_argument("packed", type=Path)
    arguments = parser.parse_args()
    graph = onnx.load(arguments.int8, load_external_data=False).graph
    shape = [dim.dim_value or 1 for dim in graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    for runtime in RUNTIMES:
        answers = [asked(runtime, path.resolve(), x) for path in (arguments.int8, arguments.packed)]
        texts = [a if isinstance(a, str) else f"runs, operators {a.operators or 'not told'}" for a in answers]
        one, other = answers
        apart = ""
        if isinstance(one, Answer) and isinstance(other, Answer):
            apart = f"; largest difference {abs(one.output - other.output).max():g}"
        print(f"{runtime.__name__}: int8 {texts[0]}; packed {texts[1]}{apart}", flush=True)


if __name__ == "__main__":
    main()
