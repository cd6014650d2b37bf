"""A graph as ONNX Runtime runs it: constants folded and operators fused."""

from pathlib import Path
from typing import Any

EXTENDED, ALL = "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"
"""How far a graph is rewritten: with fused operators; and with the layouts that this CPU likes, whose operators have a
domain of their own."""


def write_optimized(source: Path, target: Path) -> None:
    """Write the graph that ONNX Runtime makes of a file, its weights in a file beside it.

    Args:
        source: the file of a graph.
        target: `target`.data gets the weights.
    """
    import onnxruntime

    onnxruntime.InferenceSession(source, writing(target, EXTENDED), providers=["CPUExecutionProvider"])


def writing(target: Path, level: str) -> Any:
    """The options of a session that writes its graph to `target`, and its weights to a file beside it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(target)
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    entry = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(entry, f"{target.name}.data")
    return options
