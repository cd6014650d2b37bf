"""A graph as ONNX Runtime runs it, to see what it makes of a file."""

from stages.quantize.steps.files import Done, Files


def optimized(files: Files) -> Done:
    """The graph with constants folded and operators fused, its weights in a file beside it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(files.target)
    # The next level brings layouts that this CPU likes, whose operators have a domain of their own.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    entry = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(entry, f"{files.target.name}.data")
    onnxruntime.InferenceSession(files.source, options, providers=["CPUExecutionProvider"])
    return Done()
