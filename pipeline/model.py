"""The forms that a model takes: `TorchModel` while it is worked on, `OnnxModel` as it is deployed.

Both predict named outputs from named inputs, and both save and load without pickle: weights are safetensors, graphs
are ONNX, the rest is JSON.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import onnxruntime
import torch
from pydantic import JsonValue
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from pipeline.errors import ConfigError, ShrinkError, blame
from pipeline.use import Reference

Inputs = dict[str, Tensor]
Outputs = dict[str, Tensor]


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
    """

    module: nn.Module
    example: Inputs
    builder: Reference
    edits: tuple[Edit, ...] = ()
    form = "torch"

    def __post_init__(self) -> None:
        self.module.eval()

    @classmethod
    def build(cls, builder: Reference, example: Inputs) -> Self:
        """A fresh, untrained model from its builder."""
        return cls(_as_module(builder.call(), builder), example, builder)

    def predict(self, inputs: Inputs) -> Outputs:
        """Named outputs for a batch of named inputs, without gradients, on the CPU."""
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            outputs = call(self.module, {name: value.to(device) for name, value in inputs.items()})
        return {name: value.cpu() for name, value in outputs.items()}

    def edited(self, use: str, **arguments: JsonValue) -> Self:
        """A model whose structure function `use` has changed; the weights that still fit are kept by that function."""
        edit = Edit(use=use, arguments=arguments, folder=self.builder.folder)
        module = _as_module(edit.call(_copy(self.module)), edit)
        return replace(self, module=module, edits=(*self.edits, edit))

    def save(self, directory: Path) -> None:
        """Write weights.safetensors (tied weights once), example.safetensors and model.json."""
        directory.mkdir(parents=True, exist_ok=True)
        save_model(self.module, str(directory / "weights.safetensors"))
        edits = [edit.model_dump(mode="json") for edit in self.edits]
        _save_rest(self, directory, builder=self.builder.model_dump(mode="json"), edits=edits)

    @classmethod
    def load(cls, directory: Path, folder: Path = Path()) -> Self:
        """Rebuild from the builder and the edits, then load the weights.

        Args:
            directory: what `save` wrote.
            folder: where the user's files of the builder and edits are; the pipeline file's folder.
        """
        rest, example = _load_rest(directory, cls.form)
        builder = Reference(**rest["builder"], folder=folder)
        model = cls.build(builder, example)
        for edit in rest["edits"]:
            model = model.edited(edit["use"], **edit["arguments"])
        with blame(ConfigError, str(directory), fix="The builder must be what it was when the model was saved"):
            load_model(model.module, str(directory / "weights.safetensors"))
        return model


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An ONNX file and a batch of inputs that fits it; predicts with ONNX Runtime on the CPU.

    Args:
        path: the file.
        example: a small batch of inputs.
        optimize: let ONNX Runtime rewrite the graph, as it does by default.
    """

    path: Path
    example: Inputs
    optimize: bool = True
    form = "onnx"

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The session, opened on first use. Raises ShrinkError when another provider than the CPU's took over."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if not self.optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        if session.get_providers() != ["CPUExecutionProvider"]:
            raise ShrinkError(f"ONNX Runtime fell back to {session.get_providers()}", where=str(self.path))
        return session

    def predict(self, inputs: Inputs) -> Outputs:
        """Named outputs for a batch of named inputs."""
        wanted = {node.name for node in self.session.get_inputs()}
        if missing := wanted - set(inputs):
            raise ConfigError(
                f"inputs {sorted(missing)} are missing", where=str(self.path), expected=str(sorted(wanted))
            )
        feed = {name: value.cpu().numpy() for name, value in inputs.items() if name in wanted}
        names = [node.name for node in self.session.get_outputs()]
        return {name: torch.from_numpy(value) for name, value in zip(names, self.session.run(names, feed), strict=True)}

    def files(self) -> list[Path]:
        """The file to deploy and its external data, if any."""
        import onnx

        graph = onnx.load(self.path, load_external_data=False).graph
        entries = [e.value for t in graph.initializer for e in t.external_data if e.key == "location"]
        return [self.path, *(self.path.parent / name for name in dict.fromkeys(entries))]

    def save(self, directory: Path) -> None:
        """Copy the graph as model.onnx, its external data beside it, and write the example."""
        directory.mkdir(parents=True, exist_ok=True)
        graph, *data = self.files()
        shutil.copyfile(graph, directory / "model.onnx")
        for file in data:  # where the graph looks for them
            place = directory / file.relative_to(self.path.parent)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        _save_rest(self, directory)

    @classmethod
    def load(cls, directory: Path, folder: Path = Path()) -> Self:
        """Open what `save` wrote; `folder` is not needed and stands for symmetry with `TorchModel.load`."""
        _, example = _load_rest(directory, cls.form)
        return cls(directory / "model.onnx", example)


Model = TorchModel | OnnxModel


def load(directory: Path, folder: Path = Path()) -> Model:
    """Load either form from what its `save` wrote."""
    form = _read(directory)["form"]
    return (TorchModel if form == TorchModel.form else OnnxModel).load(directory, folder)


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


def _as_module(made: Any, reference: Reference) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise ConfigError(f"it gave {type(made).__name__}", where=f"use: {reference.use}", expected="a torch nn.Module")
    return made


def _copy(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module)


def _save_rest(model: Model, directory: Path, **rest: Any) -> None:
    example = {name: value.clone().contiguous() for name, value in model.example.items()}
    save_file(example, directory / "example.safetensors")
    content = {"form": model.form, "inputs": list(example), **rest}
    (directory / "model.json").write_text(json.dumps(content, indent=2) + "\n")


def _load_rest(directory: Path, form: str) -> tuple[dict[str, Any], Inputs]:
    rest = _read(directory)
    if rest["form"] != form:
        raise ConfigError(f"it holds the {rest['form']} form", where=str(directory), expected=f"the {form} form")
    example = load_file(directory / "example.safetensors")
    # What is read lies unaligned in memory, where some kernels sum in another order: a copy gives the same bits.
    return rest, {name: example[name].clone() for name in rest["inputs"]}


def _read(directory: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((directory / "model.json").read_text()))
    except FileNotFoundError:
        raise ConfigError("there is no saved model", where=str(directory), expected="a model.json") from None
