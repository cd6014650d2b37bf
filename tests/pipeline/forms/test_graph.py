"""What no runtime needs leaves a graph, also inside its branches; what a branch calls stays."""

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper

from pipeline.forms.graph import graphs_in, strip


def branching() -> ModelProto:
    """output = 2 * input where the sum is not 0, by a function that the branch alone calls; another one is not called.

    The branches have doc strings.
    """
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    body = [helper.make_node("Add", ["x", "x"], ["y"])]
    functions = [helper.make_function("own", name, ["x"], ["y"], body, opsets[:1]) for name in ("Double", "Unused")]
    value = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("input", "t", "e", "output")
    }
    double = helper.make_node("Double", ["input"], ["t"], domain="own", doc_string="from line 1")
    branches = {
        "then_branch": helper.make_graph([double], "then", [], [value["t"]], doc_string="from line 2"),
        "else_branch": helper.make_graph([helper.make_node("Identity", ["input"], ["e"])], "else", [], [value["e"]]),
    }
    nodes = [
        helper.make_node("ReduceSum", ["input", ""], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["positive"], to=TensorProto.BOOL),
        helper.make_node("If", ["positive"], ["output"], **branches),
    ]
    graph = helper.make_graph(nodes, "g", [value["input"]], [value["output"]])
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


def test_a_function_that_a_branch_alone_calls_stays_and_what_nobody_reads_goes() -> None:
    proto = branching()
    strip(proto)
    assert [function.name for function in proto.functions] == ["Double"]
    assert [entry.domain for entry in proto.opset_import] == ["", "own"]
    assert not any(part.doc_string for graph in graphs_in(proto.graph) for part in (graph, *graph.node))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"input": np.array([1, 2], np.float32)})
    np.testing.assert_array_equal(result, [2, 4])


def test_metadata_of_the_user_stay_and_those_of_tools_go() -> None:
    proto = branching()
    helper.set_model_props(proto, {"names": "cat, dog", "pkg.torch.onnx.PackageInfo": "2.13", "onnx.infer": "yes"})
    strip(proto)
    assert [(entry.key, entry.value) for entry in proto.metadata_props] == [("names", "cat, dog")]
