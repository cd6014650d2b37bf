"""The forms that a model takes: `TorchModel` while it is worked on, `OnnxModel` as it is deployed.

Both predict named outputs from named inputs, and both save and load without pickle: weights are safetensors, graphs
are ONNX, the rest is JSON.
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import JsonValue
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pipeline.base.batches import Axes, Inputs, Outputs
from pipeline.base.code.recorder import recorder
from pipeline.base.use import Reference
from pipeline.errors import ConfigError, blame
from pipeline.forms.deployed.onnx_model import OnnxModel as OnnxModel
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx as Seq2SeqOnnx
from pipeline.forms.description import load_rest, read_rest, save_rest
from pipeline.forms.layers import make_copyable, refuse_scripted, unwrapped
from pipeline.forms.sandbox.code import check_code
from pipeline.forms.weights import state_digest


class Edit(Reference):
    """A change of structure: `use` names function(module, **arguments) -> module. Weights are not its business."""


@dataclass(frozen=True, eq=False)
class TorchModel:
    """A module that knows how to be built again.

    Args:
        module: the trained module; treated as immutable, always in evaluation mode.
        example: a small batch of inputs, at least two examples, as the task gives them.
        builder: builds the module as it was before any edit.
        edits: what has been done to its structure since, in order.
        axes: of the inputs, those that the deployed file takes at any length; see `Axes`.
    """

    module: nn.Module
    example: Inputs
    builder: Reference
    edits: tuple[Edit, ...] = ()
    axes: Axes = field(default_factory=dict)
    form = "torch"

    def __post_init__(self) -> None:
        self.module.eval()
        make_copyable(self.module)

    @classmethod
    def build(cls, builder: Reference, example: Inputs, axes: Axes | None = None) -> Self:
        """A fresh, untrained model from its builder; layers that are lazy get their shapes from the example."""
        module = _as_module(builder.call(), builder)
        if any(map(is_lazy, module.parameters())):
            with torch.no_grad(), blame(ConfigError, f"use: {builder.use}"):
                call(module.eval(), example)
        recorder().note_weights(builder.model_dump_json(), lambda: state_digest(module))
        return cls(module, example, builder, axes=axes or {})

    def predict(self, inputs: Inputs) -> Outputs:
        """Named outputs for a batch of named inputs, without gradients, on the CPU."""
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            outputs = call(self.module, {name: value.to(device) for name, value in inputs.items()})
        return {name: value.cpu() for name, value in outputs.items()}

    def edited(self, use: str, **arguments: JsonValue) -> Self:
        """A model whose structure function `use` has changed; the weights that still fit are kept by that function."""
        edit = Edit(use=use, arguments=arguments, folder=self.builder.folder)
        module = _as_module(edit.call(copy.deepcopy(self.module)), edit)
        return replace(self, module=module, edits=(*self.edits, edit))

    def save(self, directory: Path) -> None:
        """Write weights.safetensors (tied weights once), example.safetensors and model.json."""
        directory.mkdir(parents=True, exist_ok=True)
        _save_weights(self.module, directory / "weights.safetensors")
        edits = [edit.model_dump(mode="json") for edit in self.edits]
        axes = {"axes": {name: dict(by_axis) for name, by_axis in self.axes.items()}} if self.axes else {}
        save_rest(directory, self.form, self.example, builder=self.builder.model_dump(mode="json"), edits=edits, **axes)

    @classmethod
    def load(cls, directory: Path, folder: Path = Path(), allow: Collection[str] | None = ()) -> Self:
        """Rebuild from the builder and the edits, then load the weights.

        Args:
            directory: what `save` wrote.
            folder: where the user's files of the builder and edits are; the pipeline file's folder.
            allow: other code that it may name; None for any, see `check_code`.

        Raises:
            ConfigError: it is damaged, or names code that is not trusted.
        """
        rest, example = load_rest(directory, cls.form)
        with blame(ConfigError, str(directory / "model.json")):
            builder = Reference(**rest["builder"], folder=folder)
            edits = [Edit(**edit, folder=folder) for edit in rest["edits"]]
            axes = {name: {int(axis): word for axis, word in by.items()} for name, by in rest.get("axes", {}).items()}
        for reference in (builder, *edits):
            check_code(reference, directory, allow)
        model = cls.build(builder, example, axes)
        for edit in edits:
            model = model.edited(edit.use, **edit.arguments)
        with blame(ConfigError, str(directory), fix="The builder must be what it was when the model was saved"):
            load_model(model.module, str(directory / "weights.safetensors"))
        return model


Deployed = OnnxModel | Seq2SeqOnnx
Model = TorchModel | Deployed


def load(directory: Path, folder: Path = Path(), allow: Collection[str] | None = ()) -> Model:
    """Load any form from what its `save` wrote; see `TorchModel.load`."""
    form = read_rest(directory)["form"]
    if form == TorchModel.form:
        return TorchModel.load(directory, folder, allow)
    kinds: dict[str, type[Deployed]] = {kind.form: kind for kind in (OnnxModel, Seq2SeqOnnx)}
    if form not in kinds:
        expected = f"one of {', '.join((TorchModel.form, *kinds))}"
        raise ConfigError(f"it holds the {form} form", where=str(directory), expected=expected)
    return kinds[form].load(directory, folder)


def call(module: nn.Module, inputs: Inputs) -> Outputs:
    """Run a module on named inputs: a single one goes in by position, several by name."""
    raw = module(*inputs.values()) if len(inputs) == 1 else module(**inputs)
    return named(raw)


def named(raw: Any) -> Outputs:
    """Name what a module returned: a tensor is "output", a sequence "output_0" and on, a mapping keeps its keys.

    Raises:
        ShrinkError: there is no tensor in it.
    """
    if isinstance(raw, Tensor):
        return {"output": raw}
    by_name = {f"output_{i}": value for i, value in enumerate(raw)} if isinstance(raw, list | tuple) else raw
    if isinstance(by_name, Mapping):
        tensors = {str(name): value for name, value in by_name.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise ConfigError(f"the model returned {type(raw).__name__}", expected="a tensor or a dictionary of tensors")


def same(one: Tensor, other: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether two outputs are equal up to rounding.

    Args:
        tolerance: of the largest finite value of the first; at half precision it is as much as rounding takes.
    """
    if one.shape != other.shape or not one.is_floating_point():
        return torch.equal(one, other)
    largest = float(one.abs().nan_to_num(0, 0).max()) if one.numel() else 0.0
    relative = max(tolerance, 30 * torch.finfo(one.dtype).eps)
    return torch.allclose(one, other, rtol=0, atol=relative * largest, equal_nan=True)


def _as_module(module: Any, reference: Reference) -> nn.Module:
    if not isinstance(module, nn.Module):
        expected = "a torch nn.Module"
        raise ConfigError(f"it gave {type(module).__name__}", where=f"use: {reference.use}", expected=expected)
    refuse_scripted(module, f"use: {reference.use}")
    return unwrapped(module)


def _save_weights(module: nn.Module, path: Path) -> None:
    """Write weights, tied ones once, to the same bytes each time."""
    whole = path.with_suffix(".tmp")
    save_model(module, str(whole))
    # It also says which names are tied, in any order, which the digest would tell; nobody reads it.
    save_file(load_file(whole), path)
    whole.unlink()
