"""A graph as ONNX Runtime runs it: constants folded and operators fused."""

from pathlib import Path


def write_optimized(source: Path, target: Path) -> None:
    """Write the graph that ONNX Runtime makes of a file, its weights in a file beside it.

    Args:
        source: the file of a graph.
        target: `target`.data gets the weights.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(target)
    # The next level brings layouts that this CPU likes, whose operators have a domain of their own.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    entry = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(entry, f"{target.name}.data")
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
