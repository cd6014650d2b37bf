"""A runtime whose packages are in an environment of their own."""

from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, JsonValue

from pipeline.base.batches import Inputs
from pipeline.context import Context
from pipeline.model import Model
from stages.benchmark.environments.converter import alone, convert
from stages.benchmark.environments.environment import Environment
from stages.benchmark.environments.sources import Source
from stages.benchmark.runtime import Runtime


class SeparateRuntime(Runtime):
    """Converts and runs models in an environment that `shrink runtimes install NAME` makes."""

    environment: ClassVar[Environment]
    converts: ClassVar[bool] = True
    source: ClassVar[Source]
    """What its converter is given of a model."""
    file: ClassVar[str]
    """Name of the file that it writes."""

    timeout: float = Field(600, gt=0, description="seconds that a conversion may take")

    @property
    def python(self) -> str:
        """The interpreter of its processes."""
        return str(self.environment.python)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Its own, without what says nothing of the figures: how long a conversion may take."""
        return {name: value for name, value in super().settings.items() if name not in SeparateRuntime.model_fields}

    @property
    def requirement(self) -> str:
        """Its package as it is pinned."""
        return f"{self.environment.package}=={self.environment.version}"

    def version(self) -> str | None:
        """Of the runtime, as it is pinned; None where the environment is not made."""
        return None if self.missing() else self.environment.version

    def missing(self) -> str | None:
        """Why its environment is not here, and the command that makes it."""
        return self.environment.missing()

    def install(self, say: Callable[[str], object]) -> Path:
        """Make its environment where it is not there, see `Environment.install`."""
        return self.environment.install(say)

    def requirements(self) -> list[str]:
        """The runtime and what its runner imports beside it, as they are pinned."""
        pins = (self.environment.package, *self.needs)
        return [f"{name}=={self.environment.pinned(name) or metadata.version(name).partition('+')[0]}" for name in pins]

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """The file that its converter writes: for so many examples with a `fixed_batch`, else for any number."""
        return self.converted(self.source.told(model, ctx, folder, batch), folder)

    def batches(self, model: Model, ctx: Context, inputs: Inputs) -> Iterator[Inputs]:
        """A batch of the task's inputs as the file takes it."""
        yield from self.source.batches(model, ctx, inputs)

    def converted(self, source: dict[str, Any], folder: Path) -> dict[str, JsonValue]:
        """What the runner is told of the file that the converter writes to a folder; see `convert` of `converter`.

        Args:
            source: what it is converted from, see `sources`.
            folder: where the file is written.
        """
        root = alone(folder.resolve())
        spec = {"runner": self.runner_file, **source, "model": str(folder.resolve() / self.file)}
        convert(self.name, spec, self.environment.python, root, self.timeout)
        return {name: value for name, value in spec.items() if name != "source"} | {"root": str(root)}
