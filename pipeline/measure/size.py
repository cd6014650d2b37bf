"""Bytes: of the file that would be deployed, and of the weights in it."""

import onnx

from pipeline.model import OnnxModel

BITS = {onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4, onnx.TensorProto.FLOAT4E2M1: 4}


def size_bytes(model: OnnxModel) -> int:
    """Bytes on disk of the graph and its external data."""
    return sum(path.stat().st_size for path in model.files())


def payload_bytes(model: OnnxModel) -> int:
    """Bytes of the initializers alone: weights, quantization scales and zero points, shape constants."""
    graph = onnx.load(model.path, load_external_data=False).graph
    return sum(_tensor_bytes(tensor) for tensor in graph.initializer)


def elements(tensor: onnx.TensorProto) -> int:
    """Number of elements of a tensor."""
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    bits = BITS.get(tensor.data_type)
    if bits is None:
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return (elements(tensor) * bits + 7) // 8
