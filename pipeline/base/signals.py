"""Ctrl-C and SIGTERM: the first lets the current step end, the second stops at once."""

import logging
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from pipeline.errors import Interruption

LOG = logging.getLogger("shrinkline")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Catches the first signal inside the block. Only the main thread can; elsewhere nothing is caught.

    In a forked child, such as a loader's worker, SIGINT is the parent's affair and SIGTERM ends it as ever.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.caught: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._catch) for number in SIGNALS}
        return self

    def __exit__(self, _: type | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    @property
    def exit_code(self) -> int:
        """What a process that was stopped exits with."""
        return 128 + (self.caught or signal.SIGINT)

    def requested(self) -> bool:
        """Whether to stop where work can be taken up again."""
        return self.caught is not None

    def check(self) -> None:
        """Raise Interruption where a stop was asked for."""
        if self.caught:
            raise Interruption(f"stopped by {signal.Signals(self.caught).name}")

    def _catch(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self.process:
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.caught = number
        for again, before in self.before.items():  # the second one stops at once, whatever answered it before
            at_once = signal.default_int_handler if again == signal.SIGINT else signal.SIG_DFL
            signal.signal(again, signal.SIG_IGN if before == signal.SIG_IGN else at_once)
        notice = "%s: the current step is finished first; once more stops at once"
        # From a thread: the main one may be in the middle of writing to the stream that this goes to.
        threading.Thread(target=LOG.warning, args=(notice, signal.Signals(number).name)).start()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
