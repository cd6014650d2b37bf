"""The steps by their names."""

from typing import Any

from stages.quantize.quantizing.calibration_data import CalibrationData
from stages.quantize.steps.dynamic import dynamic
from stages.quantize.steps.files import Done, Files
from stages.quantize.steps.half import half
from stages.quantize.steps.optimized import optimized
from stages.quantize.steps.optimum import optimum
from stages.quantize.steps.prepare import prepare
from stages.quantize.steps.sensitivity import sensitivity
from stages.quantize.steps.static import static
from stages.quantize.steps.weights import weights


def do(step: str, files: Files, settings: dict[str, Any], data: CalibrationData) -> Done:
    """Write what a step makes of a graph; what it says of that.

    Args:
        step: name of one of these functions.
        files: the graph's, and the one to write.
        settings: of the step, JSON.
        data: read where there are batches.
    """
    arguments = {**settings, "data": data} if len(data) else settings
    steps = (prepare, static, dynamic, optimum, optimized, weights, half, sensitivity)
    return {function.__name__: function for function in steps}[step](files, **arguments)
