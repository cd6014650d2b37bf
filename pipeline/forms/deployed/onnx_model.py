"""The form in which a model is deployed: an ONNX file, run here or, where it comes from outside, in a child."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch

from pipeline.base.batches import Inputs, Outputs
from pipeline.errors import ConfigError, ShrinkError
from pipeline.forms.description import load_rest, save_rest
from pipeline.forms.sandbox.calls import Calls
from pipeline.forms.sandbox.check import check, external
from pipeline.forms.sandbox.child import open_session
from pipeline.forms.sandbox.process import DEFAULT
from pipeline.forms.sandbox.session import Child, Outside
from pipeline.forms.text.vocabulary import FILE as VOCABULARY
from pipeline.forms.text.vocabulary import Vocabulary


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
        if missing := input_names - {*file_inputs, *self.how.constants, *self.how.states}:
            problem = f"inputs {sorted(missing)} are missing"
            raise ConfigError(problem, where=str(self.path), expected=str(sorted(input_names)))
        arrays = {name: value.cpu().numpy() for name, value in file_inputs.items() if name in input_names}
        run = partial(self._run, names)
        return self.named(self.how.together(run, arrays) if self.in_calls else run(arrays))

    def named(self, by_name: dict[str, Any]) -> Outputs:
        """What the file gave, by its own names and by those that the task has for them."""
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
        for feed in self.how.each(partial(self._run, names), arrays):
            yield {name: torch.from_numpy(value) for name, value in feed.items()}

    def count(self, inputs: Inputs) -> int:
        """How many calls there are for a batch of the task's inputs."""
        return self.how.count({name: value.numpy() for name, value in self.feed(inputs).items()})

    @property
    def in_calls(self) -> bool:
        """Whether a file from outside takes examples otherwise than a whole batch in front; see `Calls`."""
        return self.how != Calls()

    @property
    def batch(self) -> int | None:
        """Examples of each call where a file from outside fixes them, else None."""
        return self.how.batch

    @property
    def how(self) -> Calls:
        """How it is called for a batch of examples."""
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
