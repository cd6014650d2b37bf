"""A graph as the quantizers want it."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import onnx
from onnx import TensorProto

from pipeline.forms.graph import graphs_in
from stages.quantize.graphs.rewrite import plain_gemms
from stages.quantize.graphs.versions import raised
from stages.quantize.steps.files import Done, Files

HALVES = {TensorProto.FLOAT16, TensorProto.BFLOAT16}


def prepare(files: Files) -> Done:
    """The graph not too old, constants and norms folded, shapes inferred, biases flat; `source` is changed.

    Raises:
        ValueError: its weights are of half precision, or its opset cannot be raised.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, target, external = files.source, files.target, files.external
    old = onnx.load(source)
    kinds = {tensor.data_type for part in graphs_in(old.graph) for tensor in part.initializer if len(tensor.dims) > 1}
    if kinds & HALVES and TensorProto.FLOAT not in kinds:
        raise ValueError("its weights are of half precision, which would stay. Quantize a file with weights of float32")
    files.save(raised(old), source)
    with _no_fallback():
        # ONNX's own shape inference suffices; the symbolic one stops at transformers from the torch exporter.
        quant_pre_process(source, target, skip_symbolic_shape=True, save_as_external_data=external)
    proto = onnx.load(target)
    plain_gemms(proto.graph)
    files.save(proto, target)
    return Done()


@contextmanager
def _no_fallback() -> Iterator[None]:
    """Raise what stopped the optimization, which the pre-processing would log, to go on without."""

    def again(_: logging.LogRecord) -> bool:
        if error := sys.exc_info()[1]:
            raise error
        return True

    with patch.object(logging.getLogger("onnxruntime.quantization.shape_inference"), "filters", [again]):
        yield
