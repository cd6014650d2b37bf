"""What the converter's casts come to: values between nodes in fp32 are not rounded, the others are."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx

from stages.quantize.steps.files import Files
from stages.quantize.steps.half import half
from tests.graphs import graph, node, run

X = np.array([[500.0, 3.0]], np.float32)


def converted(folder: Path, nodes: list[onnx.NodeProto], outputs: list[str], apart: list[str]) -> onnx.ModelProto:
    proto = graph(nodes, {"x": ["n", 2]}, {name: ["n", 2] for name in outputs})
    onnx.save(proto, folder / "net.onnx")
    files = Files(folder / "net.onnx", folder / "half.onnx", False)
    half(files, kind="fp16", compute="half", apart=apart, spares=False)
    return onnx.load(folder / "half.onnx")


def casts(proto: onnx.ModelProto) -> int:
    return [node.op_type for node in proto.graph.node].count("Cast")


SQUARE, BACK = node("Mul", ["x", "x"], ["h"], "square"), node("Div", ["h", "x"], ["y"], "back")


def test_a_large_value_between_two_nodes_in_fp32_stays(tmp_path: Path) -> None:
    proto = converted(tmp_path, [SQUARE, BACK], ["y"], ["square", "back"])
    assert np.array_equal(run(proto, X), X)
    assert casts(proto) == 0


def test_what_a_node_in_fp16_reads_too_is_cast_for_that_alone(tmp_path: Path) -> None:
    nodes = [SQUARE, BACK, node("Transpose", ["h"], ["t"], "other", perm=[0, 1]), node("Neg", ["t"], ["z"], "last")]
    proto = converted(tmp_path, nodes, ["y", "z"], ["square", "back", "last"])
    assert np.array_equal(run(proto, X), X)
    (z,) = onnx_run(proto, ["z"])
    assert z.tolist() == [[-np.inf, -9.0]]
    assert casts(proto) == 2


def onnx_run(proto: onnx.ModelProto, names: list[str]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(names, {"x": X})


def test_a_file_is_prepared_in_the_process_that_converted_one() -> None:
    """ONNX Runtime's packages that read a folder which importing them puts on the path, in a fresh process."""
    code = """
import sys, tempfile
from pathlib import Path
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from stages.quantize.steps.files import Files
from stages.quantize.steps.half import half
from stages.quantize.steps.prepare import prepare
folder = Path(tempfile.mkdtemp())
ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8])] for name in "xy"]
weights = [numpy_helper.from_array(np.ones((8, 8), np.float32), "w")]
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], "product")], "g", *ends, weights)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), folder / "a.onnx")
before = [*sys.path]
half(Files(folder / "a.onnx", folder / "b.onnx", False), kind="fp16", compute="half", apart=[], spares=False)
assert sys.path == before
prepare(Files(folder / "a.onnx", folder / "c.onnx", False))
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
