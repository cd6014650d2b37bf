"""How far a file in halves answers from the one in fp32."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from pipeline.base.batches import Outputs
from pipeline.errors import ForeignError, NotFinite, StageError
from pipeline.forms.sandbox.session import Outside
from pipeline.model import OnnxModel
from pipeline.task import Split

BATCH = 16


def furthest(before: OnnxModel, after: OnnxModel, data: Split, examples: int, *, in_child: bool) -> float | None:
    """How far the outputs are from fp32's at most, as a share of their range; None without any in floats.

    Args:
        before: in fp32.
        after: in halves.
        data: where there are none the example of the model is taken.
        examples: how many of them at most.
        in_child: whether the file in halves runs in a process of its own, for it may crash the runtime.

    Raises:
        NotFinite: an output becomes infinite.
        StageError: the runtime crashes on the file.
    """
    if in_child:
        after = replace(after, outside=before.outside or Outside())
    differences = []
    try:
        for old, new in _outputs(before, after, data, examples):
            names = [name for name, value in old.items() if value.is_floating_point()]
            differences += [difference(name, old[name], new[name]) for name in names]
    except ForeignError as error:
        fix = "Leave compute at fp32, or try `fp32: [Transpose]`, which its fusions stumble over"
        raise StageError(f"ONNX Runtime does not run the file here: {error.found}", fix=fix) from error
    finally:
        for opened in (before, after):
            opened.close()
    return max(differences, default=None)


def _outputs(before: OnnxModel, after: OnnxModel, data: Split, examples: int) -> Iterator[tuple[Outputs, Outputs]]:
    split = data.select(list(range(min(len(data), examples))))
    batches = (batch.inputs for batch in split.loader(BATCH)) if len(split) else filter(None, [before.example])
    for inputs in batches:
        yield before.predict(inputs), after.predict(inputs)


def difference(name: str, old: torch.Tensor, new: torch.Tensor) -> float:
    """How far an output is from what it was, as a share of its range. Raises NotFinite where it becomes infinite."""
    is_finite = old.isfinite()
    if not new[is_finite].isfinite().all():
        fix = "Name the layers that give large values in `fp32`, or leave compute at fp32"
        raise NotFinite(f"the output `{name}` becomes infinite on the calibration data", fix=fix)
    values = old[is_finite]
    span = float(values.max() - values.min()) if values.numel() else 0.0
    return float((new[is_finite] - values).abs().max()) / span if span > 0 else 0.0
