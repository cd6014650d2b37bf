"""The forms that a model takes: `TorchModel` while it is worked on, `OnnxModel` as it is deployed.

Both predict named outputs from named inputs, and both save and load without pickle: weights are safetensors, graphs
are ONNX, the rest is JSON.
"""

import copy
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import JsonValue
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from pipeline.base.batches import Axes, Inputs, Outputs
from pipeline.base.code.recorder import recorder
from pipeline.base.use import Reference
from pipeline.errors import ConfigError, ShrinkError, blame
from pipeline.forms.description import load_rest, read_rest, save_rest
from pipeline.forms.sandbox.calls import Calls
from pipeline.forms.sandbox.check import check, external
from pipeline.forms.sandbox.child import open_session
from pipeline.forms.sandbox.code import check_code
from pipeline.forms.sandbox.process import DEFAULT
from pipeline.forms.sandbox.session import Child, Outside
from pipeline.forms.seq2seq import Seq2SeqOnnx
from pipeline.forms.text.vocabulary import FILE as VOCABULARY
from pipeline.forms.text.vocabulary import Vocabulary
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

    @classmethod
    def build(cls, builder: Reference, example: Inputs, axes: Axes | None = None) -> Self:
        """A fresh, untrained model from its builder."""
        module = _as_module(builder.call(), builder)
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


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An ONNX file and a batch of inputs that fits it; predicts with ONNX Runtime on the CPU.

    Args:
        path: the file.
        example: a small batch of inputs, as the task gives them.
        optimize: let ONNX Runtime rewrite the graph, as it does by default.
        vocabulary: puts the task's inputs into those that the file takes, where tokens have left; None where they fit.
        outside: of a file that comes from outside, or was made of one: it is run in a process of its own, and its names
            may differ from the task's. None for a file of ours.
    """

    path: Path
    example: Inputs
    optimize: bool = True
    vocabulary: Vocabulary | None = None
    outside: Outside | None = None
    form = "onnx"

    @cached_property
    def session(self) -> Any:
        """The onnxruntime.InferenceSession, opened on first use.

        Raises:
            ShrinkError: another provider than the CPU's took over, or the file is from outside.
        """
        if self.outside:
            raise ShrinkError("a file from outside is not opened in this process", where=str(self.path))
        session = open_session(self.path, optimize=self.optimize)
        if session.get_providers() != ["CPUExecutionProvider"]:
            raise ShrinkError(f"ONNX Runtime fell back to {session.get_providers()}", where=str(self.path))
        return session

    @cached_property
    def child(self) -> Child:
        """The process that runs a file from outside, started on first use. Raises ForeignError where it dies."""
        return Child(self.path, optimize=self.optimize, limits=self.outside.limits if self.outside else DEFAULT)

    def close(self) -> None:
        """End the process that runs it, if there is one; it starts again where it is needed."""
        if "child" in self.__dict__:
            self.__dict__.pop("child").close()

    def feed(self, inputs: Inputs) -> Inputs:
        """What the file takes for a batch of the task's inputs, by the names of its own."""
        translated_inputs = self.vocabulary.translate(inputs) if self.vocabulary else inputs
        names = self.outside.inputs if self.outside else {}
        return {names.get(name, name): value for name, value in translated_inputs.items()}

    def predict(self, inputs: Inputs) -> Outputs:
        """Named outputs for a batch of the task's named inputs; one that the task calls otherwise has both names."""
        input_names, names = self._ports()
        file_inputs = self.feed(inputs)
        if missing := input_names - {*file_inputs, *self._calls.constants, *self._calls.states}:
            problem = f"inputs {sorted(missing)} are missing"
            raise ConfigError(problem, where=str(self.path), expected=str(sorted(input_names)))
        arrays = {name: value.cpu().numpy() for name, value in file_inputs.items() if name in input_names}
        run = partial(self._run, names)
        by_name = self._calls.together(run, arrays) if self.in_calls else run(arrays)
        outputs = {name: torch.from_numpy(value) for name, value in by_name.items()}
        renamed = self.outside.outputs if self.outside else {}
        return {renamed[name]: value for name, value in outputs.items() if name in renamed} | outputs

    def calls(self, inputs: Inputs) -> Iterator[Inputs]:
        """What the file takes for a batch of the task's inputs, call by call; a file of ours takes all in one."""
        file_inputs = self.feed(inputs)
        if not self.in_calls:
            yield file_inputs
            return
        input_names, names = self._ports()
        arrays = {name: value.cpu().numpy() for name, value in file_inputs.items() if name in input_names}
        for feed in self._calls.each(partial(self._run, names), arrays):
            yield {name: torch.from_numpy(value) for name, value in feed.items()}

    def count(self, inputs: Inputs) -> int:
        """How many calls there are for a batch of the task's inputs."""
        return self._calls.count({name: value.numpy() for name, value in self.feed(inputs).items()})

    @property
    def in_calls(self) -> bool:
        """Whether a file from outside takes examples otherwise than a whole batch in front; see `Calls`."""
        return self._calls != Calls()

    @property
    def batch(self) -> int | None:
        """Examples of each call where a file from outside fixes them, else None."""
        return self._calls.batch

    @property
    def _calls(self) -> Calls:
        return self.outside.calls if self.outside else Calls()

    def _ports(self) -> tuple[set[str], list[str]]:
        if self.outside:
            return set(self.child.inputs), self.child.outputs
        return {node.name for node in self.session.get_inputs()}, [node.name for node in self.session.get_outputs()]

    def _run(self, names: list[str], feed: dict[str, Any]) -> dict[str, Any]:
        if not self.outside:
            return dict(zip(names, self.session.run(names, feed), strict=True))
        try:
            return dict(self.child.run(feed))
        except (ShrinkError, RuntimeError):  # it is gone; the next one begins anew
            self.close()
            raise

    def files(self) -> list[Path]:
        """The file to deploy and its external data, if any."""
        return [self.path, *(self.path.parent / name for name in external(self.path))]

    def save(self, directory: Path) -> None:
        """Copy the graph as model.onnx, its external data beside it, and write the example."""
        directory.mkdir(parents=True, exist_ok=True)
        if self.outside:
            check(self.path)  # what its data are copied from lies inside its folder
        graph, *data = self.files()
        own = {"model.onnx", "model.json", "example.safetensors", VOCABULARY}
        if conflicts := own & {str(file.relative_to(self.path.parent)) for file in data}:
            fix = "Give its external data another name"
            raise ConfigError(f"its data lie in a file called {min(conflicts)}", where=str(self.path), fix=fix)
        shutil.copyfile(graph, directory / "model.onnx")
        for file in data:  # where the graph looks for them
            place = directory / file.relative_to(self.path.parent)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        if self.vocabulary:
            self.vocabulary.save(directory)
        rest: dict[str, Any] = {"vocabulary": VOCABULARY} if self.vocabulary else {}
        if self.outside:  # without the limits, which are the run's and not the file's
            rest["outside"] = {"inputs": dict(self.outside.inputs), "outputs": dict(self.outside.outputs)}
            rest["outside"] |= {"calls": self.outside.calls.to_json()} if self.outside.calls != Calls() else {}
        save_rest(directory, self.form, self.example, **rest)

    @classmethod
    def load(cls, directory: Path, folder: Path = Path()) -> Self:
        """Open what `save` wrote; `folder` is not needed and stands for symmetry with `TorchModel.load`."""
        rest, example = load_rest(directory, cls.form)
        vocabulary = Vocabulary.load(directory) if "vocabulary" in rest else None
        saved = rest.get("outside")
        calls = Calls.from_json(saved.pop("calls", {})) if saved else Calls()
        outside = Outside(**saved, calls=calls) if saved is not None else None
        return cls(directory / "model.onnx", example, vocabulary=vocabulary, outside=outside)


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
    return module


def _save_weights(module: nn.Module, path: Path) -> None:
    """Write weights, tied ones once, to the same bytes each time."""
    whole = path.with_suffix(".tmp")
    save_model(module, str(whole))
    # It also says which names are tied, in any order, which the digest would tell; nobody reads it.
    save_file(load_file(whole), path)
    whole.unlink()
