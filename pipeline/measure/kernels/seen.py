"""Files looked at and timed: in this process, or in one of their own where they come from outside."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from pipeline.base.files import scratch
from pipeline.errors import StageError, blame
from pipeline.forms.sandbox.check import check
from pipeline.forms.sandbox.frames import Arrays
from pipeline.forms.sandbox.process import Process
from pipeline.measure.kernels.child import FEEDS
from pipeline.measure.kernels.look import look
from pipeline.measure.kernels.turns import Timed, in_turns
from pipeline.model import OnnxModel


class Eye(Protocol):
    """What looks at files and times them."""

    def look(self, timed: Timed, runs: int) -> dict[str, Any]: ...  # noqa: D102  # as look.look

    def in_turns(self, one: Timed, other: Timed) -> tuple[list[float], list[float]]: ...  # noqa: D102


@contextmanager
def eye(model: OnnxModel) -> Iterator[Eye]:
    """What looks at a model and at the one before it.

    Raises:
        ConfigError: a file from outside did not pass the check.
        ForeignError: it crashed its process.
        StageError: ONNX Runtime does not load or run it, as it did when it was measured.
    """
    with TemporaryDirectory(dir=scratch()) as folder, blame(StageError, "looking at its kernels"):
        target = Path(folder) / "optimized.onnx"
        if model.outside is None:
            yield _Here(target)
            return
        process = Process(model.path, "pipeline.measure.kernels.child", "profiles", model.outside.limits)
        with closing(process):
            yield _There(target, process)


class _Here:
    def __init__(self, target: Path) -> None:
        self.target = target

    def look(self, timed: Timed, runs: int) -> dict[str, Any]:
        return look(timed.path, timed.feed, runs, self.target)

    def in_turns(self, one: Timed, other: Timed) -> tuple[list[float], list[float]]:
        return in_turns(one, other)


class _There:
    def __init__(self, target: Path, process: Process) -> None:
        self.target, self.process = target, process

    def look(self, timed: Timed, runs: int) -> dict[str, Any]:
        names = {"path": str(timed.path.absolute()), "target": str(self.target.absolute())}
        return self.process.ask({"do": "look", "runs": runs, **names}, timed.feed)[0]

    def in_turns(self, one: Timed, other: Timed) -> tuple[list[float], list[float]]:
        pair = dict(zip(FEEDS, (one, other), strict=True))
        for timed in pair.values():
            check(timed.path)
        feeds: Arrays = {f"{start}{name}": a for start, timed in pair.items() for name, a in timed.feed.items()}
        paths = {start: str(timed.path.absolute()) for start, timed in pair.items()}
        answer = self.process.ask({"do": "in turns", **paths}, feeds)[0]
        return [float(value) for value in answer["one"]], [float(value) for value in answer["other"]]
