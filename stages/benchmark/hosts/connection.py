"""One connection to a device, on which our agent answers."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any

from stages.benchmark.runners.hosts import agent

SOURCE = Path(agent.__file__).read_bytes()
BOOTSTRAP = (
    "import sys;sys.version_info<(3,10)and sys.exit('Python %d.%d is too old: 3.10 or newer'%sys.version_info[:2]);"
    f"exec(compile(sys.stdin.buffer.read({len(SOURCE)}),'agent','exec'))"
)
"""What Python is to run on the device, in one line, which every shell there quotes alike: it reads the agent."""

GREETING = 1000
"""Lines at most that a login shell may write before the agent does."""
LONGEST = 10**6  # bytes of a line
PIECE = 2**20
PATIENCE = 10.0  # seconds to end
LAST = 4000  # bytes of what the client wrote


class Gone(Exception):
    """The connection is no more; whoever knows what was done makes an error of it.

    Args:
        text: what the client said, or what is wrong with the answer.
        code: that the client ended with.
        expired: whether it was ended by us, for there was no answer in time.
        greeted: whether the agent had ever answered.
    """

    def __init__(self, text: str, code: int, *, expired: bool, greeted: bool) -> None:
        super().__init__(text)
        self.text, self.code, self.expired, self.greeted = text, code, expired, greeted


class Connection:
    """Our end of the pipes to the agent; `device` is what it says of itself.

    Args:
        command: runs `BOOTSTRAP` in Python on the device.
        seconds: until the agent answers.

    Raises:
        Gone: it does not. So does each method.
    """

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  # not a pipe: nobody would read it while we wait
        self.expired = self.greeted = False
        # A session of its own: it ends with its input, and not by Ctrl-C in the middle of a measurement.
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        self.process = subprocess.Popen(command, start_new_session=True, **pipes)
        try:
            with self._within(seconds):
                self._write(SOURCE)
                self.device = self._greeting()
        except Gone:
            self.close()
            raise
        self.greeted = True

    def ask(self, request: dict[str, Any], seconds: float, sent: Path | None = None) -> dict[str, Any]:
        """What the agent answers within so many seconds to a request, behind which a file may be sent."""
        with self._within(seconds):
            self._write(json.dumps(request).encode() + b"\n")
            if sent:
                with sent.open("rb") as file:
                    while piece := file.read(PIECE):
                        self._write(piece)
            return self._parsed(self._line())

    def fetch(self, path: str, target: Path, most: int, seconds: float) -> int | None:
        """The size of a file of the device's, which is written to `target` where it has at most so many bytes.

        None where there is none.
        """
        size = self.ask({"do": "get", "path": path, "most": most}, seconds).get("size")
        left = size if isinstance(size, int) and size <= most else 0
        with self._within(seconds), target.open("wb") as file:
            while left:
                piece = self.process.stdout.read(min(left, PIECE))  # type: ignore[union-attr]
                if not piece:
                    raise self._gone()
                left -= len(piece)
                file.write(piece)
        return size if isinstance(size, int) else None

    def close(self) -> None:
        """End the agent, which removes its folder, and the client."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]
        self.log.close()

    def _greeting(self) -> dict[str, Any]:
        lines = (self._line() for _ in range(GREETING))
        line = next((line for line in lines if line.startswith(agent.HELLO.encode())), b"")
        return self._parsed(line.removeprefix(agent.HELLO.encode()))

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        timer = Timer(seconds, self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        self.process.kill()

    def _write(self, data: bytes) -> None:
        try:
            self.process.stdin.write(data)  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            raise self._gone() from None

    def _line(self) -> bytes:
        line: bytes = self.process.stdout.readline(LONGEST)  # type: ignore[union-attr]
        if not line.endswith(b"\n"):
            raise self._gone()
        return line

    def _parsed(self, line: bytes) -> dict[str, Any]:
        with suppress(ValueError):
            if isinstance(answer := json.loads(line), dict):
                return answer
        raise self._gone("it answers what our agent never does")

    def _gone(self, text: str = "") -> Gone:
        try:
            code = self.process.wait(0 if text else PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        size = self.log.seek(0, 2)
        self.log.seek(max(size - LAST, 0))
        reason = text or self.log.read().decode(errors="replace").strip()
        return Gone(reason, code, expired=self.expired, greeted=self.greeted)
