"""A graph as the quantizers want it."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import onnx

from stages.quantize.graphs.rewrite import plain_gemms
from stages.quantize.graphs.versions import raised
from stages.quantize.steps.files import Done, Files


def prepare(files: Files) -> Done:
    """The graph not too old, constants and norms folded, shapes inferred, biases flat; `source` is changed."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, target, external = files.source, files.target, files.external
    files.save(raised(onnx.load(source)), source)
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
