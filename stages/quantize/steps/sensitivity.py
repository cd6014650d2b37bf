"""What each width does to each layer of a graph."""

from collections.abc import Iterator
from typing import Any

import onnx

from pipeline.forms.sandbox.frames import Arrays
from stages.quantize.graphs.rewrite import chosen, deep_products, torn_weights
from stages.quantize.mixed.units import units_of
from stages.quantize.quantizing.calibration_data import CalibrationData
from stages.quantize.rounding.layout import WEIGHTS
from stages.quantize.steps.files import Done, Files


def sensitivity(
    files: Files,
    *,
    data: CalibrationData,
    operators: list[str],
    exclude: list[str],
    per_channel: bool,
    labelling: dict[str, Any] | None,
    **trial: Any,
) -> Done:
    """An entry for each unit of layers; nothing is written.

    Args:
        files: as in `do`.
        data: the examples.
        operators, exclude: which nodes.
        per_channel: whether each output channel has a scale.
        labelling: the fields of the task's where answers are logits.
        trial: the other arguments of `Trial`.
    """
    from pipeline.base.targets.labelling import Labelling
    from stages.quantize.mixed.effects import Trial, effects

    proto = onnx.load(files.source)
    nodes = chosen(proto.graph, {*operators} & {*WEIGHTS}, exclude)
    whole = {*deep_products(proto.graph).values(), *torn_weights(proto.graph)} if per_channel else None
    units = units_of(proto.graph, nodes, whole)
    known = Labelling(**labelling) if labelling else None
    return Done(layers=effects(files.source, proto, units, _batches(data), Trial(labelling=known, **trial)))


def _batches(data: CalibrationData) -> Iterator[Arrays]:
    for _ in range(len(data)):
        data.allow()
        batch = data.get_next()
        if batch is not None:
            yield batch
