"""Export to ONNX."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from pipeline.base.batches import Outputs
from pipeline.context import Context, Preview
from pipeline.deploy import deploy
from pipeline.errors import StageError
from pipeline.forms.graph import OPSET
from pipeline.forms.tracing import rounded_otherwise
from pipeline.measure.agreement import agreeing
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.stage import Stage

BATCH_SIZE = 64


class OnnxExport(Stage):
    """An ONNX file with a dynamic batch, checked against the torch model on real validation inputs.

    Choose it before any quantization of the file. What follows is measured in ONNX Runtime.

    Example:
        - {use: export.onnx, opset: 20, tolerance: 1.0e-4}
    """

    opset: int = Field(OPSET, ge=18, le=25, description="ONNX operator set")
    tolerance: float = Field(1e-4, gt=0, description="largest difference |onnx - torch| / (1 + |torch|) allowed")
    examples: int = Field(256, gt=0, description="validation examples to compare on")

    def outlook(self, model: Model, before: Sequence[Stage], preview: Preview) -> Model | None:
        """What it exports."""
        return model

    def exported_opset(self) -> int:
        """Its own."""
        return self.opset

    def run(self, model: TorchModel, ctx: Context) -> OnnxModel:
        """The file; StageError when its outputs differ from the torch model's by more than the tolerance."""
        path = ctx.directory / "model.onnx"
        deployed_model = ctx.deployed(model) if self.opset == OPSET else None
        if isinstance(deployed_model, OnnxModel):  # measuring has made this very file already
            for file in deployed_model.files():
                # The graph names its external data, if any: they keep their name.
                shutil.copyfile(file, path if file == deployed_model.path else path.with_name(file.name))
            exported = replace(deployed_model, path=path)
        else:
            exported = deploy(model, path, self.opset)
        check_parity(compare(model, exported, ctx, self.examples), self.tolerance, ctx)
        return exported


def check_parity(parity: dict[str, Any], tolerance: float, ctx: Context) -> None:
    """Report what `compare` found, and raise StageError where it is beyond the tolerance."""
    ctx.report("parity", parity)
    tolerance = max(tolerance, parity.get("rounding", 0.0))
    if not parity["largest_difference"] <= tolerance:
        problem = f"ONNX Runtime's outputs differ from torch's by {parity['largest_difference']:.2e}"
        fix = "Look for operators that depend on the batch, or raise `tolerance` if accuracy holds"
        raise StageError(problem, expected=f"at most {tolerance:.0e}", fix=fix)


def compare(model: TorchModel, exported: OnnxModel, ctx: Context, examples: int) -> dict[str, Any]:
    """The largest |onnx - torch| / (1 + |torch|) over all outputs, and the share of equal decisions.

    Where the torch model has quantized values, of which two runtimes round some to the next integer, `rounding` is how
    far the outputs move when every value is moved by up to half a step before it is rounded.

    Args:
        model, exported: the two forms.
        ctx: whose validation split and decode are used.
        examples: how many examples at most.
    """
    chosen = ctx.validation.select(list(range(min(examples, len(ctx.validation)))))
    labelling, largest, same = ctx.labelling if ctx.logits else None, 0.0, list[Tensor]()
    otherwise, rounding = rounded_otherwise(model.module), 0.0
    for batch in chosen.loader(BATCH_SIZE):
        onnx_outputs, torch_outputs = exported.predict(batch.inputs), model.predict(batch.inputs)
        largest = max(largest, _largest(onnx_outputs, torch_outputs))
        if otherwise:
            with otherwise():
                rounding = max(rounding, _largest(model.predict(batch.inputs), torch_outputs))
        ours, theirs = (ctx.decode(form.predict, batch.inputs) for form in (exported, model))
        if labelling or not ours.is_floating_point():
            targets = labelling.numbers(ours, batch.targets) if labelling else None
            same.append(agreeing(ours, theirs, labelling, targets))
    agreement = float(torch.cat(same).mean()) if sum(map(len, same)) else None
    parity = {"largest_difference": largest, "agreement": agreement, "examples": len(chosen)}
    return {**parity, "rounding": rounding} if otherwise else parity


def _largest(ours: Outputs, theirs: Outputs) -> float:
    """The largest difference of outputs, by place: see `deploy` for names."""
    return max(difference(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))


def difference(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> float:
    """As numpy.allclose measures it, with equal relative and absolute parts; NaN and another shape count as infinite.

    Args:
        ours, theirs: of any shape.
        mask: not 0 where they are compared, of the shape of their first axes; None for everywhere.
    """
    if ours.shape != theirs.shape:
        return float("inf")
    error = (ours.double() - theirs.double()).abs() / (1 + theirs.double().abs())
    if mask is not None:
        error = error[mask.bool()]
    return float(torch.nan_to_num(error, nan=float("inf")).max()) if error.numel() else 0.0
