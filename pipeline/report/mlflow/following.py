"""Tracking in a process of its own: MLflow is imported there while torch is imported here, and logs while a run works.

The process reads the record from the run folder, where it is saved before each word about it; see `follower`.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from select import select
from typing import IO, Any, cast

from safetensors.numpy import save

from pipeline.base.signals import SIGNALS
from pipeline.records.record import Record
from pipeline.report.mlflow.connection import STOPPED, unreachable, went_away
from pipeline.report.mlflow.logged_model import Graph
from pipeline.report.mlflow.run import Projection, ended, keep_state

LOG = logging.getLogger("shrinkline")

MAIN = "import sys; sys.path[:] = {}; from pipeline.report.mlflow.follower import main; main()"

Opening = Callable[[Record, Path, bool], AbstractContextManager[Projection]]


@contextmanager
def following(wanted: bool = True) -> Iterator[Opening | None]:
    """What opens the tracking of one run as `open_tracking` does, in a process that starts now.

    None where tracking goes on in this process: MLflow is imported already, or there can be no other process.
    """
    follower = None
    if wanted and "mlflow" not in sys.modules:
        with suppress(OSError):
            follower = Follower(_started())
    try:
        yield follower.open if follower else None
    finally:
        if follower:
            follower.close()


class Follower:
    """The process that logs a run; where it dies, that costs one warning, as a server does that is down.

    Args:
        process: a `follower`.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.requests, self.answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        self.later, self.problem, self.is_gone = "", "", False
        self.owed, self.torn = 0, b""  # answers that are to come, and what there is of the next line

    @contextmanager
    def open(self, record: Record, runs: Path, require: bool = False) -> Iterator["Follower"]:
        """Tracking for one run; see `open_tracking`, whose words these are."""
        self.later = f"shrink sync {record.folder}"
        keep_state(Path(record.folder), synced=False)
        self._ask(folder=record.folder)
        if require:
            self._hear(wait=True)
            if self.problem:
                raise unreachable(self.problem)
        with ended(self, record):
            yield self
        if require and self.problem:
            raise went_away(self.problem, self.later)

    def update(self, record: Record) -> None:
        """Log what is new in the record, some time."""
        self._ask(do="update")

    def finish(self, record: Record, final: Graph | None) -> None:
        """Log the verdict and the last model, some time."""
        example = b64encode(save(final.example)).decode() if final else ""
        self._ask(do="finish", final={"path": str(final.path), "example": example} if final else None)

    def end(self, record: Record, status: str, *, whole: bool = True) -> None:
        """Close the parent run, and wait until all is logged."""
        self._ask(do="end", status=status, whole=whole)
        self._hear(wait=True)

    def close(self) -> None:
        """Let go of the process, which ends the run in MLflow where that is not done, or at once if there is none."""
        if not self.later:
            self.process.kill()
        with suppress(BrokenPipeError):
            self.requests.close()
        self.process.wait()
        self.answers.close()

    def _ask(self, **request: Any) -> None:
        if self.is_gone:
            return
        try:
            line = memoryview(json.dumps(request).encode() + b"\n")
            while line:
                line = line[self.requests.write(line) :]
        except BrokenPipeError:
            self._die()
        else:
            self.owed += 1
            self._hear()

    def _hear(self, *, wait: bool = False) -> None:
        """Take the answers that are there, or wait for all that are owed."""
        while self.owed and (wait or select([self.answers], [], [], 0)[0]):
            part = os.read(self.answers.fileno(), 2**16)
            if not part:
                self._die()
                return
            *lines, self.torn = (self.torn + part).split(b"\n")
            for answer in map(json.loads, lines):
                if "text" in answer:
                    LOG.log(answer["level"], "%s", answer["text"])
                else:
                    self.owed, self.problem = self.owed - 1, answer["problem"]

    def _die(self) -> None:
        """Tell that the process is gone, unless it has told before that MLflow is."""
        code, self.owed, self.is_gone = self.process.wait(), 0, True
        if not self.problem:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            self.problem = f"its process {how}"
            LOG.warning(STOPPED, self.problem, self.later)


def _started() -> subprocess.Popen[bytes]:
    """A follower, which imports what this process would. Ctrl-C reaches it too, and is for this process to answer."""
    command = [sys.executable, "-P", "-c", MAIN.format(repr(sys.path))]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # is inherited, and stays so there
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
