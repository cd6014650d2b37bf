"""Progress of anything longer than two seconds: a bar on a terminal, a line now and then elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[..., None]


def lines(debug: bool = False) -> logging.Handler:
    """What shows messages as lines with the time on standard error, so that standard output is data."""
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=debug, log_time_format="[%X]")
    handler.setLevel(logging.DEBUG if debug else logging.INFO)
    return handler


@contextmanager
def audible() -> Iterator[None]:
    """With our messages shown as lines, where nobody has said where they go."""
    log = logging.getLogger("shrinkline")
    if log.hasHandlers():
        yield
        return
    handler, level = lines(), log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _Speed(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """The speed, once there is one."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")


@contextmanager
def progress(console: Console, log: logging.Logger, description: str, total: int) -> Iterator[Advance]:
    """Gives advance(steps=1, note=None): moves the bar, and says the note beside it."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True) as bar:
            task = bar.add_task(description, total=total, note="")

            def advance(steps: int = 1, note: str | None = None) -> None:
                bar.update(task, advance=steps)
                if note:
                    bar.update(task, note=note)

            yield advance
    else:
        yield _Lines(log, description, total)


class _Lines:
    """A log line with throughput and the time left, at most every ten seconds."""

    def __init__(self, log: logging.Logger, description: str, total: int) -> None:
        self.log, self.description, self.total = log, description, total
        self.done, self.note, self.began = 0, "", time.monotonic()
        self.last_line = self.began

    def __call__(self, steps: int = 1, note: str | None = None) -> None:
        self.done, self.note = self.done + steps, note or self.note
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        speed = self.done / (now - self.began)
        seconds_left = (self.total - self.done) / speed if speed else float("inf")
        text = "%s: %d of %d, %.1f/s, %.0f s left %s"
        self.log.info(text, self.description, self.done, self.total, speed, seconds_left, self.note)
