"""Old ONNX files as the quantizers want them: in an opset with scales for channels, weights no inputs but constants."""

import onnx
from onnx import version_converter

from pipeline.forms.graph import graphs_in, inputs_of, opset, refill

OLDEST = 13
"""The first opset with QuantizeLinear and DequantizeLinear along an axis."""


def raised(proto: onnx.ModelProto, oldest: int = OLDEST) -> onnx.ModelProto:
    """The graph in an opset from `oldest` on and the IR version that goes with it, its weights none of its inputs.

    Args:
        proto: the graph, which may be changed.
        oldest: 13 or a newer opset.

    Raises:
        ValueError: an operator of the old opset has no counterpart.
    """
    version = opset(proto)
    if version < oldest:
        try:
            proto = version_converter.convert_version(proto, oldest)
        except RuntimeError as error:
            problem = f"its opset {version} could not be raised to {oldest}: {error}"
            raise ValueError(f"{problem}. Export it again with opset {oldest} or newer") from error
    if version < 11:
        _keep_positions(proto.graph)
    refill(proto.graph.input, inputs_of(proto.graph))
    oldest_ir = onnx.helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    proto.ir_version = max(proto.ir_version, oldest_ir)
    return proto


def _keep_positions(graph: onnx.GraphProto) -> None:
    """Have each Resize find its pixels as before opset 11, whose default is another; the converter forgets that."""
    for part in graphs_in(graph):
        scales = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in part.initializer}
        for node in (node for node in part.node if node.op_type == "Resize"):
            is_smaller = any((scales[name] < 1).any() for name in node.input[-1:] if name in scales)
            old = {
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "ceil" if is_smaller else "floor",
            }
            refill(node.attribute, [attribute for attribute in node.attribute if attribute.name not in old])
            node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in old.items())
