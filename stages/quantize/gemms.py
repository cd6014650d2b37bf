"""What ONNX Runtime's dynamic quantizer makes of a Gemm: a MatMul and an Add."""

import onnx

from stages.quantize.compact import graphs_in


def split_gemm(node: onnx.NodeProto) -> str:
    """The name of the MatMul that ONNX Runtime makes of a Gemm; other nodes keep theirs."""
    return f"{node.name}_MatMul" if node.op_type == "Gemm" else str(node.name)


def transpose_gemms(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph, changed in place, with constant weights of `Gemm(transB=1)` stored transposed, shared ones once.

    ONNX Runtime would transpose a weight in place for each Gemm that reads it: one that two of them share comes out
    wrong, without an error.
    """
    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    transposed_names: dict[str, str] = {}
    for node in graph.node:
        flags = [a for a in node.attribute if a.name == "transB" and a.i]
        if node.op_type != "Gemm" or not flags or node.input[1] not in weights:
            continue
        name = node.input[1]
        if name not in transposed_names:
            transposed_names[name] = f"{name}_transposed"
            matrix = onnx.numpy_helper.to_array(weights[name]).T.copy()
            graph.initializer.append(onnx.numpy_helper.from_array(matrix, transposed_names[name]))
        node.input[1] = transposed_names[name]
        node.attribute.remove(flags[0])
    read = {name for part in graphs_in(graph) for node in part.node for name in node.input}
    read |= {value.name for value in graph.output}
    for name in transposed_names:
        if name not in read:
            graph.initializer.remove(weights[name])
    return proto
