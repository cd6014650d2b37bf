"""ONNX Runtime's own format: `python -m stages.benchmark.runners.ort FILE.onnx FILE.ort OPERATORS` makes it.

OPERATORS is written beside it: what a build of ONNX Runtime needs that has no more than the file's operators.
"""

import sys
from pathlib import Path

import onnxruntime

from stages.benchmark.runners.loaded import Loaded, Spec
from stages.benchmark.runners.onnxruntime import load as load_file


def load(spec: Spec) -> Loaded:
    """The .ort file that `model` of the spec names."""
    return load_file(spec)


def convert(source: Path, target: Path, operators: Path) -> None:
    """Write a file in ONNX Runtime's format, optimized as far as it stays the same on every processor."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    from onnxruntime.tools.ort_format_model import create_config_from_models

    create_config_from_models([target], operators, enable_type_reduction=True)


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:4]))
