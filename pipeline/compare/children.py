"""Runs as processes of their own, several at a time: one that fails, or is killed, stops no other."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.base.signals import Interrupts
from pipeline.compare.strategies import Strategy
from pipeline.records.record import Failure, Record

BETWEEN_LOOKS = 0.1
PATIENCE = 60.0  # seconds to end after a signal


@dataclass(frozen=True, eq=False)
class Order:
    """A strategy with a seed; each is itself alone."""

    strategy: Strategy
    seed: int

    @property
    def title(self) -> str:
        """For logs."""
        return f"{self.strategy.name}, seed {self.seed}"


@dataclass(frozen=True)
class Ending:
    """How a run ended: its record, as far as there is one, and why it failed."""

    order: Order
    record: Record | None
    failure: Failure | None


def run_all(
    orders: Sequence[Order],
    comparison: str,
    runs: Path,
    jobs: int,
    interrupts: Interrupts,
    on_line: Callable[[str, str], None],
) -> list[Ending]:
    """Run every order, at most `jobs` at a time, without benchmarks.

    Args:
        orders: what to run.
        comparison: the name of the comparison's folder.
        runs: the folder of runs.
        jobs: processes at a time; they share the cores.
        interrupts: where a stop is asked for the processes are told, and nothing more is begun.
        on_line: told (title, line) for each line that a run writes.

    Returns:
        How each ended, in the order of the orders; of those that were never begun there is nothing.
    """
    at_once = threading.Event()

    def ended(order: Order) -> Ending | None:
        stopped = interrupts.requested()
        return None if stopped else _run(order, _command(order, comparison, runs), jobs, interrupts, at_once, on_line)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return [ending for ending in pool.map(ended, orders) if ending]
        except KeyboardInterrupt:  # the second one
            at_once.set()
            raise


def _run(
    order: Order,
    command: list[str],
    jobs: int,
    interrupts: Interrupts,
    at_once: threading.Event,
    on_line: Callable[[str, str], None],
) -> Ending:
    process = subprocess.Popen(
        command,
        env=_environment(jobs),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches this process alone, which passes one signal on
    )
    printed, last = list[str](), [""]
    readers = [
        threading.Thread(target=printed.extend, args=(process.stdout,)),
        threading.Thread(target=_tell, args=(process.stderr, order.title, on_line, last)),
    ]
    for reader in readers:
        reader.start()
    _wait(process, interrupts, at_once)
    for reader in readers:
        reader.join()
    return _ending(order, process.returncode, "".join(printed), last[0])


def _command(order: Order, comparison: str, runs: Path) -> list[str]:
    strategy = order.strategy
    # -P: what lies in the current folder under our names is not taken for ours.
    words = [sys.executable, "-P", "-m", "pipeline", "run", str(strategy.file), "--json", "--runs", str(runs)]
    words += ["--strategy", strategy.key] if strategy.key else []
    words += [word for assignment in strategy.overrides for word in ("--set", assignment)]
    words += ["--allow-unsafe-load"] if strategy.allow_unsafe_load else []
    return [*words, "--set", f"seed={order.seed}", "--in-comparison", comparison]


def _environment(jobs: int) -> dict[str, str]:
    """That of this process, with the cores shared out; one process alone takes as many threads as ever."""
    wide = {"COLUMNS": "200"}  # lines are not to be wrapped
    if jobs == 1:
        return {**os.environ, **wide}
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    return {"OMP_NUM_THREADS": str(threads), **os.environ, **wide}


def _tell(stream: Iterator[str] | None, title: str, on_line: Callable[[str, str], None], last: list[str]) -> None:
    for line in stream or ():
        if line.strip():
            on_line(title, line.rstrip())
            last[0] = line.strip()


def _wait(process: subprocess.Popen[str], interrupts: Interrupts, at_once: threading.Event) -> None:
    """Until it has ended; a stop is passed on, and one that does not follow, or is to stop at once, is killed."""
    stop_time = 0.0
    while process.poll() is None:
        time.sleep(BETWEEN_LOOKS)
        if interrupts.requested() and not stop_time:
            stop_time = time.monotonic()
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        if at_once.is_set() or (stop_time and time.monotonic() - stop_time > PATIENCE):
            process.kill()


def _ending(order: Order, code: int, printed: str, last: str) -> Ending:
    record = None
    with suppress(ValidationError, json.JSONDecodeError):
        record = Record.model_validate_json(printed) if printed.strip() else None
    if record and not record.failure and record.final and code >= 0:
        return Ending(order, record, None)
    if record and record.failure:
        return Ending(order, record, record.failure)
    code = 128 - code if code < 0 else code or 70  # as a shell says that a signal ended it
    return Ending(order, record, Failure(where=order.title, message=last or "it said nothing", exit_code=code))
