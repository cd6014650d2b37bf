"""A graph as ONNX Runtime runs it, to see what it makes of a file."""

from pipeline.forms.deployed.optimized import write_optimized
from stages.quantize.steps.files import Done, Files


def optimized(files: Files) -> Done:
    """The graph with constants folded and operators fused, its weights in a file beside it."""
    write_optimized(files.source, files.target)
    return Done()
