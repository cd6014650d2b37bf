"""What `on:` of a runtime says, and what it is while a stage times."""

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema

from pipeline.base.data.sizes import SCHEMA, in_bytes
from pipeline.base.data.strict import Strict
from stages.benchmark.runners.loaded import Spec

Size = Annotated[int, BeforeValidator(in_bytes), Field(gt=0), WithJsonSchema(SCHEMA)]
"""Such as `256 MB`."""


class Machine(ABC):
    """Runs processes, one at a time; what it has for that is given back at the end of its `with`."""

    name: str = ""
    """What rows call it; nothing for this machine without limits."""

    @abstractmethod
    def run(self, spec: Spec, folder: Path, did: str) -> dict[str, Any]:
        """What a fresh process tells that loads a model.

        Args:
            spec: what `stages.benchmark.runners.child` reads, without `result` and `began`; files that it names are
                here, and here is where the process's own lie afterwards.
            folder: here, for what is written beside.
            did: in messages what the process was for, such as "timed model.onnx".

        Raises:
            StageError: the process failed; with the last lines that it wrote.
            ResourceError: it was killed, most likely for memory.
        """

    def ready(self) -> None:
        """See to it that processes can run, before work is done for them. Raises StageError where they cannot."""
        return

    def close(self) -> None:
        """Give back what it has."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Host(Strict, ABC):
    """Where the processes of a runtime run, other than here and without limits. Its fields are keys of `on:`."""

    is_far: ClassVar[bool] = False
    """Whether it is another machine, with files and packages of its own."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What rows and messages call it."""

    @abstractmethod
    def machine(self) -> Machine:
        """What runs processes there."""

    def missing(self, threads: int) -> str | None:
        """Why so many threads cannot run there, as far as it is known here and without asking it."""
        return None

    def rests_on(self) -> dict[str, JsonValue]:
        """What tells it from another one of the same settings: part of the key of a result."""
        return {}
