"""Child processes that start warm and clean, for importing torch takes seconds.

They are forks of a server that has imported, exported a model once, and done nothing else. What other tests have left
in a test's own process, such as threads and the locks that they hold, would go into a fork of it, which then waits for
them for ever.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir, nullcontext
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from tests import kept

# As the command line sets it: torch reads it while it is imported, which in a fork it is already.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([
    "pytest", "accelerate", "mlflow.onnx", "mlflow.store.tracking.sqlalchemy_store", "onnxruntime", "onnxscript",
    "pipeline.cli.app", "pipeline.report.html.page", "pipeline.runner", "pipeline.run.distributed.worker", "plotly",
    "PIL.PngImagePlugin", "scipy.special", "stages.distill.logits", "stages.export.onnx", "stages.prune.channels",
    "stages.quantize.dynamic", "stages.train.supervised", "torch._dynamo", "torch._export", "xml.dom.expatbuilder",
    "tests.warm",
])  # fmt: skip
RUNNING: Any = forkserver._forkserver  # type: ignore[attr-defined]
ROOT = Path(__file__).parents[1]
PATIENCE = 120  # seconds until a test gives up; nothing is measured in them


def start(
    main: Callable[..., Any], *args: Any, environment: dict[str, str] | None = None, **kwargs: Any
) -> ForkServerProcess:
    """A child that does main(*args, **kwargs), in this environment or this process's; all is pickled on the way."""
    if not RUNNING._forkserver_address:
        with chdir(ROOT):  # where the server finds what it imports
            RUNNING.ensure_running()
    how = (environment or dict(os.environ), kept.Kept.place(), RUNNING._forkserver_address)
    process = SERVER.Process(target=_begin, args=(how, main, args, kwargs))
    process.start()
    return process


def exit_code(main: Callable[..., Any], *args: Any, **kwargs: Any) -> int | None:
    """How a child ends that does main(*args, **kwargs): negative where a signal ended it."""
    child = start(main, *args, **kwargs)
    child.join(PATIENCE)
    return child.exitcode


def die(*_: Any) -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def _begin(how: tuple[dict[str, str], Path | None, str], main: Callable[..., Any], args: Any, kwargs: Any) -> None:
    assert "tests.warm" in sys.modules
    environment, folder, RUNNING._forkserver_address = how
    RUNNING.ensure_running = lambda: None  # a child of it starts its own children by it
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    kept.install(folder)
    kept.keep_tables()
    main(*args, **kwargs)


class Ended(NamedTuple):
    code: int | None
    err: str
    out: str


class Shrink:
    """A `shrink` command in a process group of its own.

    Args:
        folder: where what it writes to stdout and stderr goes.
        words: its arguments.
        cwd: where it works; this process's folder if None.
        tracked: whether it logs to MLflow.
        prepare: what is called in its process before it begins.
        environment: the variables that it has; this process's if None.
    """

    def __init__(
        self,
        folder: Path,
        *words: str,
        cwd: Path | None = None,
        tracked: bool = False,
        prepare: Callable[[], Any] = int,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.err, self.out = folder / "stderr.txt", folder / "stdout.txt"
        for file in (self.err, self.out):
            file.write_bytes(b"")
        how = (words, self.out, self.err, cwd or Path.cwd(), tracked, prepare)
        self.process = start(_command, *how, environment=environment)

    def send(self, number: int, *, group: bool = False) -> None:
        assert self.process.pid is not None
        (os.killpg if group else os.kill)(self.process.pid, number)

    def until(self, happened: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.is_alive(), self.said()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def said(self) -> str:
        return self.err.read_text()

    def end(self) -> Ended:
        self.process.join(PATIENCE)
        return Ended(self.process.exitcode, self.said(), self.out.read_text())

    def group(self) -> list[int]:
        """The processes that are left of the command's group."""
        rows = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
        return [int(row[2]) for row in rows if int(row[2]) == self.process.pid and row[0] != "Z"]


def shrink(
    *words: object, cwd: Path, prepare: Callable[[], Any] = int, **variables: str
) -> subprocess.CompletedProcess[str]:
    """What `python -m pipeline` gives in a folder, with these variables besides those of the tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "GITHUB_"))}
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"tracked": True, "prepare": prepare, "environment": {**own, **variables}}
        ended = Shrink(Path(folder), *map(str, words), cwd=cwd, **how).end()
    assert ended.code is not None, f"it did not end in {PATIENCE} s: {ended.err}"
    return subprocess.CompletedProcess(words, ended.code, ended.out, ended.err)


class Child:
    """What `subprocess.Popen` is for a command `python -m pipeline`, as a fork of the server."""

    def __init__(self, command: list[str], env: dict[str, str], **_: Any) -> None:
        words = tuple(command[command.index("pipeline") + 1 :])
        (self.out, out), (self.err, err) = (SERVER.Pipe(duplex=False) for _ in range(2))
        self.stdout, self.stderr = (os.fdopen(os.dup(pipe.fileno()), errors="replace") for pipe in (self.out, self.err))
        self.process = start(_command, words, out, err, Path.cwd(), True, children, environment=env)
        out.close()
        err.close()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.process.pid is not None and self.process.exitcode is None:
            os.kill(self.process.pid, number)


def children() -> None:
    """Let what a comparison starts be forks as well."""
    from pipeline.compare import children

    children.subprocess = SimpleNamespace(Popen=Child, PIPE=subprocess.PIPE)  # type: ignore[assignment, attr-defined]


def _command(words: tuple[str, ...], out: Any, err: Any, cwd: Path, tracked: bool, prepare: Callable[[], Any]) -> None:
    """Be a fresh interpreter with these words, as far as a fork can be; `out` and `err` are files or ends of pipes."""
    os.setpgid(0, 0)
    for number, place in ((1, out), (2, err)):
        os.dup2(os.open(place, os.O_WRONLY | os.O_APPEND) if isinstance(place, Path) else place.fileno(), number)
    os.chdir(cwd)
    sys.argv = ["shrink", *words]
    sys.path.insert(0, str(cwd))
    tempfile.tempdir = None  # of the variables that the server had

    from pipeline import runner
    from pipeline.cli import app

    if not tracked:
        runner.open_tracking = lambda *_, **__: nullcontext()  # type: ignore[assignment, attr-defined]
    prepare()
    try:
        app.main()
    finally:
        atexit._run_exitfuncs()
