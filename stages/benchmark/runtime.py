"""What a runtime is to benchmark.latency: a setting that says where models are timed and gives them its form."""

import sys
from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from inspect import getfile
from pathlib import Path
from typing import Any, ClassVar

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from pipeline.base.batches import Inputs
from pipeline.base.data.strict import Strict
from pipeline.base.files import file_digest, folder_digest
from pipeline.base.formatting import runtime_text
from pipeline.base.use import is_built_in
from pipeline.context import Context
from pipeline.errors import ConfigError, StageError
from pipeline.fit import FORMS
from pipeline.forms.sandbox.wire import DamagedError
from pipeline.model import Model, OnnxModel, Seq2SeqOnnx, TorchModel
from stages.benchmark.hosts.setting import On

RUNNERS = Path(__file__).with_name("runners")


class Runtime(Strict, ABC):
    """Where models are timed. A file defines one; what it loads a model with is a runner, in a process of its own.

    Its fields are its settings. Choose by name: `openvino` is the module `stages.benchmark.runtimes.openvino`, and
    `my_runtime.py` a file beside the pipeline file.
    """

    forms: ClassVar[tuple[type, ...]] = (TorchModel, OnnxModel)
    """What it takes; a torch model is deployed as an ONNX file before."""
    package: ClassVar[str] = ""
    """The distribution that brings it."""
    command: ClassVar[str] = ""
    """What installs it; by its package unless given."""
    runner: ClassVar[str] = ""
    """What loads a model in its process: the name of a file in `stages/benchmark/runners`, by default its own name, or
    a .py beside this one, by default its name with `_runner.py`."""
    fixed_batch: ClassVar[bool] = False
    """Whether what it converts takes one number of examples alone, so that there is a conversion for each."""

    converts: ClassVar[bool] = False
    """Whether its package makes here what it loads, so that it must be here wherever that is run."""
    travels: ClassVar[bool] = True
    """Whether its runner does without our code, so that a device can run it that has the package and numpy alone."""
    reads_as: ClassVar[str] = ""
    """The runner of another runtime that opens its files as it is."""
    needs: ClassVar[tuple[str, ...]] = ("numpy",)
    """What its runner imports beside its package."""

    is_reference: ClassVar[bool] = False
    """Whether its answers are those that others are compared with."""

    use: str = Field(description="the runtime: a name that `shrink runtimes` lists, or a file.py")
    required: bool = Field(default=False, description="fail where it cannot run a model, and not go on without")
    on: On | None = Field(
        default=None,
        description="where its processes run: {ssh: USER@HOST}, or within limits here: {cpus: [0], memory: 256 MB}",
    )

    @property
    def name(self) -> str:
        """What rows and messages call it."""
        return Path(self.use).name.removesuffix(".py")

    @property
    def runner_file(self) -> str:
        """What the process is told to load: a built-in runner by name, or the path of a user's."""
        if is_built_in(self.use):
            return self.runner or self.name
        runner = self.runner or f"{self.name}_runner.py"
        return str(Path(getfile(type(self))).resolve().with_name(runner)) if runner.endswith(".py") else runner

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Its own settings, resolved."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in Runtime.model_fields}

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> Any:
        """The bare name, where nothing else is said."""
        fields = handler(self)
        if self.on is None:
            del fields["on"]
        return self.use if fields == {"use": self.use, "required": False} else fields

    @property
    def python(self) -> str:
        """The interpreter of its processes."""
        return sys.executable

    def version(self) -> str | None:
        """Of the package, None where it is not installed."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    @property
    def title(self) -> str:
        """The name, and where it runs, if that is not here and without limits."""
        return runtime_text(self.name, (), self.on.name if self.on else None)

    @property
    def label(self) -> str:
        """Tells it from others of its name: with its settings, and where it runs, as tables have it."""
        return runtime_text(self.name, self.settings.values(), self.on.name if self.on else None)

    @property
    def answers_as_reference(self) -> bool:
        """Whether its answers are those that others are compared with: another processor may round otherwise."""
        return self.is_reference and not (self.on and self.on.is_far)

    def unfit(self, threads: int) -> str | None:
        """Why so many threads cannot run where `on:` says, as far as it is known before; None where they can."""
        if self.on and self.on.is_far and not self.travels:
            return "it needs more than its package and numpy there"
        return self.on.missing(threads) if self.on else None

    @property
    def is_needed_here(self) -> bool:
        """Whether its package must be on this machine."""
        return self.converts or not (self.on and self.on.is_far)

    @property
    def requirement(self) -> str:
        """What pip installs where it is missing."""
        return self.package

    def rests_on(self) -> dict[str, JsonValue]:
        """What its figures depend on beside settings and the code imported here: part of the key of a result."""
        own = Path(self.runner_file)
        runners = {own.name: file_digest(own)} if own.suffix == ".py" and own.is_file() else {}
        version = self.version() if self.is_needed_here else None
        hardware: dict[str, JsonValue] = {"absent": reason} if (reason := self.lacks()) else {}
        return {"version": version, "runners": folder_digest(RUNNERS, "**/*.py"), **runners, **hardware}

    def lacks(self) -> str | None:
        """Which hardware is not where it runs, as far as that is here."""
        return self.absent() if self.is_needed_here else None

    def absent(self) -> str | None:
        """Which hardware is not here that it needs: its rows are then skipped; None where all is."""
        return None

    def missing(self) -> str | None:
        """Why it cannot run here and the command that helps; None where it can, or would if no hardware was absent."""
        if self.version() is not None:
            return None
        return f"{self.package} is not installed: {self.command or f'pip install {self.package}'}"

    def install(self, say: Callable[[str], object]) -> Path:
        """Make the environment of its own that it has, and give its folder; `say` is told what happens.

        Raises:
            ConfigError: it has none.
        """
        state = self.missing() or f"{self.package} {self.version()} is here"
        raise ConfigError(f"{self.name} has no environment of its own: {state}")

    def accepts(self, model: Model, batches: Sequence[int]) -> None:
        """Raise StageError where it cannot take a model, or not so many examples at a time."""
        if not isinstance(model, self.forms):
            raise StageError(f"{self.name} does not take {FORMS[type(model)]}", fix=self.remedy)

    @property
    def remedy(self) -> str:
        """What to do where it does not take a form."""
        return f"Leave {self.name} out" + (", or measure before export.onnx" if TorchModel in self.forms else "")

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """What the runner is told of a model, at least `model`, an absolute path; by default its ONNX file.

        Where the model is not all of the file or folder `model`, and no more, `files` are the paths of its files.

        Args:
            model: of a form that it takes.
            ctx: whose `deployed` gives the ONNX file of a torch model.
            folder: for what it writes; it is there.
            batch: examples of an inference, the most of them unless it has a `fixed_batch`.

        Raises:
            StageError: it cannot be converted.
        """
        return deployed_files(ctx.deployed(model))

    def requirements(self) -> list[str]:
        """What it needs to run, pinned."""
        own = [f"{self.package}=={self.version()}"] if self.package else []
        return [*own, *(f"{name}=={metadata.version(name).partition('+')[0]}" for name in self.needs)]

    def batches(self, model: Model, ctx: Context, inputs: Inputs) -> Iterator[Inputs]:
        """A batch of the task's inputs as the runner is fed with it, in the names of the file; one unless it steps."""
        deployed = ctx.deployed(model)
        if isinstance(deployed, OnnxModel):
            yield from deployed.calls(inputs)
        else:
            yield deployed.feed(inputs)

    @property
    def generates(self) -> bool:
        """Whether it times an encoder-decoder, which generates."""
        return Seq2SeqOnnx in self.forms


def deployed_files(deployed: Any) -> dict[str, JsonValue]:
    """What a runner that loads an ONNX file, or an encoder-decoder's folder, is told of it."""
    try:
        files = deployed.files()
    except DamagedError:  # the process that loads it says what is wrong with it
        files = [deployed.path]
    return {"model": str(deployed.path.resolve()), "files": [str(file.resolve()) for file in files]}
