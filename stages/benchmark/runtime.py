"""What a runtime is to benchmark.latency: a setting that says where models are timed and gives them its form."""

from abc import ABC
from collections.abc import Iterator, Sequence
from importlib import metadata
from inspect import getfile
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_serializer,
)

from pipeline.base.batches import Inputs
from pipeline.base.use import classes_in, find, is_built_in
from pipeline.errors import ConfigError, StageError
from pipeline.model import Model, OnnxModel, Seq2SeqOnnx, TorchModel
from pipeline.stage import FORMS, Context

PACKAGE = "stages.benchmark.runtimes"


class Runtime(BaseModel, ABC):
    """Where models are timed. A file defines one; what it loads a model with is a runner, in a process of its own.

    Its fields are its settings. Choose by name: `openvino` is the module `stages.benchmark.runtimes.openvino`, and
    `my_runtime.py` a file beside the pipeline file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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

    use: str = Field(description="the runtime: a name that `shrink runtimes` lists, or a file.py")

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
        return self.use if fields == {"use": self.use} else fields

    def version(self) -> str | None:
        """Of the package, None where it is not installed."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    def missing(self) -> str | None:
        """Why it cannot run here and the command that helps; None where it can."""
        if self.version() is not None:
            return None
        return f"{self.package} is not installed: {self.command or f'pip install {self.package}'}"

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

        Args:
            model: of a form that it takes.
            ctx: whose `deployed` gives the ONNX file of a torch model.
            folder: for what it writes; it is there.
            batch: examples of an inference, the most of them unless it has a `fixed_batch`.

        Raises:
            StageError: it cannot be converted.
        """
        return {"model": str(ctx.deployed(model).path.resolve())}

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


def parse_runtimes(value: Any, info: ValidationInfo) -> Any:
    """A list of names or {use: NAME, ...} as runtimes; anything else is left for pydantic to refuse.

    Args:
        value: what stands in the config, or runtimes.
        info: of the validation; `folder` in its context is where a user's files are.

    Raises:
        ValueError: there is no such runtime, or its settings do not fit.
    """
    folder = info.context["folder"] if info.context else Path()
    return tuple(_parsed(entry, folder) for entry in value) if isinstance(value, list | tuple) else value


Runtimes = Annotated[
    tuple[SerializeAsAny[Runtime], ...],
    BeforeValidator(parse_runtimes),
    WithJsonSchema({"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}}),
]
"""The type of a `runtimes:` setting."""


def _parsed(entry: Any, folder: Path) -> Any:
    entry = {"use": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict):
        return entry
    use = entry.get("use")
    if not isinstance(use, str):
        raise ValueError("each runtime is a name, or a mapping with `use`, such as {use: onnxruntime}")
    try:
        return runtime_class(use, folder).model_validate(entry)
    except ConfigError as error:
        raise ValueError(f"`{use}` names no runtime: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(f"runtime {use}: {f'`{where}`: ' if where else ''}{problem['msg']}") from error


def runtime_class(use: str, folder: Path) -> type[Runtime]:
    """The one Runtime of a file. Raises ConfigError where there is no such file, or it defines none or several."""
    classes: list[type[Runtime]] = classes_in(find(use, folder, package=PACKAGE), Runtime)
    if len(classes) != 1:
        raise ConfigError(f"it defines {len(classes)} runtimes", expected="exactly one subclass of Runtime")
    return classes[0]
