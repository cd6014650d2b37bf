"""Training over several processes, seen from rank 0: start the others, tell them what to run, end with all of them.

`shrink run --processes 2` starts them here; under torchrun, which starts a command several times on one or more
machines, they are there already. Rank 0 does all but train alone, and the others wait for it: what they read, the
user's files, the data and the folder of runs, must lie at the same place on every machine.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import torch
from pydantic import JsonValue
from torch import distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from pipeline.base.world import ALONE, FOR_EVER, World, is_lost, join
from pipeline.errors import ConfigError, Interruption, StageError
from pipeline.model import Model
from pipeline.stage import Stage

Keep = Callable[[str, Model, dict[str, JsonValue], Callable[[Path], None]], Path]
"""`Context.kept`."""

HOST = "127.0.0.1"
PATIENCE = 5.0  # seconds for the others to end, or for the word why one is gone
BETWEEN_LOOKS = 0.05


@dataclass
class Processes:
    """The processes of one run; by default this one alone.

    Args:
        world: rank 0 among all.
        children: those of ranks 1 and on, where they were started here.
        store: where they meet, and where one that fails says why.
        ended: whether they know that it has ended.
    """

    world: World = ALONE
    children: tuple[subprocess.Popen[bytes], ...] = ()
    store: Store | None = None
    ended: bool = False

    @contextmanager
    def together(self, order: dict[str, JsonValue], again: str) -> Iterator[None]:
        """The others run what is ordered while this process runs what is inside.

        Args:
            order: for `pipeline.run.distributed.worker`.
            again: what to do where one of them is lost.

        Raises:
            StageError: one of them failed or was killed.
        """
        if self.world.size == 1:
            yield
            return
        with self._watched(again), _ranked(self.world.size):
            self.world.broadcast(order)
            yield
            self.world.wait()  # no one still reads what is cleared away after this

    def share(self, kept: Keep) -> Keep:
        """`Context.kept` of rank 0, which tells the others the folder; while they wait, their threads are its own."""
        if self.world.size == 1:
            return kept
        all_threads = torch.get_num_threads()  # for the processes are not together yet

        def keep(what: str, model: Model, parts: dict[str, JsonValue], make: Callable[[Path], None]) -> Path:
            try:
                with _computing_with(all_threads):
                    folder = kept(what, model, parts, make)
            except Interruption:
                self.world.broadcast(None)
                raise
            self.world.broadcast(str(folder))
            return folder

        return keep

    def end(self) -> None:
        """Tell the others that there is nothing more to do; wait for none that does not hear it."""

        def say() -> None:
            with suppress(RuntimeError):  # it is gone already
                self.world.broadcast({})

        if self.world.size > 1:
            thread = Thread(target=say, daemon=True)
            thread.start()
            thread.join(PATIENCE)
            self.ended = True

    def close(self) -> None:
        """See the others off."""
        for child in self.children:
            try:
                child.wait(PATIENCE if self.ended else 0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdin:
                child.stdin.close()
        if dist.is_initialized():
            dist.destroy_process_group()

    def gather(self, run: dict[str, JsonValue], stop: Callable[[], None]) -> None:
        """Wait until all are there, and give them the run. Raise StageError where one ended before that."""
        if self.store is None:
            return
        while not self.store.check([f"here/{rank}" for rank in range(1, self.world.size)]):
            if any(child.poll() is not None for child in self.children):
                raise StageError(self._why(), where="starting the processes")
            stop()
            time.sleep(BETWEEN_LOOKS)
        with self._watched(""):
            join(self.store, 0, self.world.size)
            self.world.broadcast(run)

    @contextmanager
    def _watched(self, again: str) -> Iterator[None]:
        """What torch raises inside where another process is gone becomes one StageError that says why."""
        try:
            yield
        except (RuntimeError, StageError) as error:
            if not is_lost(error):
                raise
            raise StageError(self._why(), fix=again) from error

    def _why(self) -> str:
        """Who is gone and why, as far as it can be told."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            gone = [(rank, child.poll()) for rank, child in enumerate(self.children, 1)]
            for rank in range(1, self.world.size):  # first what they say: the others end because one did
                if self.store and self.store.check([f"failed/{rank}"]):
                    message = self.store.get(f"failed/{rank}").decode()
                    return f"rank {rank} of {self.world.size} processes failed: {message}"
            for rank, code in gone:
                if code:
                    return f"a process of the training was lost: rank {rank} of {self.world.size} {_ending(code)}"
            time.sleep(BETWEEN_LOOKS)
        return f"one of {self.world.size} processes of the training was lost"


@contextmanager
def gathered(size: int, run: dict[str, JsonValue], stop: Callable[[], None]) -> Iterator[Processes]:
    """All processes of a run, this one at rank 0, for as long as the block lasts.

    Args:
        size: how many; see `how_many`.
        run: the resolved config, the user's folder and the digests of the data, for `pipeline.run.distributed.worker`.
        stop: raises where waiting for them is to end.
    """
    processes = Processes() if size == 1 else _started(size)
    try:
        processes.gather(run, stop)
        yield processes
        processes.end()
    except Interruption:  # all have stopped at the same step
        processes.end()
        raise
    finally:
        processes.close()


def launched() -> int:
    """How many processes torchrun, or what sets the same variables, has started; 1 where it has not."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in names) else 1


def rank() -> int:
    """Which of the processes this one is."""
    return int(os.environ["RANK"]) if launched() > 1 else 0


def how_many(asked: int | None, before: int = 1) -> int:
    """How many processes train.

    Args:
        asked: by the user; None for what torchrun says, or else `before`.
        before: how many did when the run began.

    Raises:
        ConfigError: not what torchrun says, or this process is not the first of them.
    """
    there, where = launched(), "--processes"
    if asked is not None and asked < 1:
        raise ConfigError(f"there are {asked} processes", where=where, expected="1 or more")
    if there == 1:
        return asked or before
    if asked not in (None, there):
        raise ConfigError(f"it says {asked} and torchrun {there}", where=where, fix="Leave it out under torchrun")
    if rank():
        fix = "Call pipeline.run.distributed.worker.main() in the others"
        raise ConfigError(f"this is rank {rank()}", expected="rank 0", fix=fix)
    return there


def check_division(size: int, device: torch.device, stages: tuple[tuple[str, Stage], ...], examples: int) -> None:
    """Refuse what cannot be divided among processes.

    Args:
        size: how many there are.
        device: where they train.
        stages: with their places.
        examples: in the training split.

    Raises:
        ConfigError: a batch cannot be divided, or there are fewer GPUs than processes.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size)) if launched() > 1 else size
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and here > max(gpus, 1):
        raise ConfigError(f"{here} processes on {gpus} GPU{'s' * (gpus != 1)}", where="--processes", fix="Start fewer")
    for place, stage in stages:
        for batch, accumulate in stage.trainings() if stage.distributed else ():
            parts = size * accumulate
            if batch % parts or examples < parts:
                whole = f"a batch of {batch}" if batch % parts else f"the {examples} examples to train on"
                problem = f"{whole} cannot be divided into {parts} equal parts"
                expected = f"a multiple of {parts}: {size} processes, each with {accumulate} of `accumulate`"
                fix = "Change batch_size, accumulate or the number of processes"
                raise ConfigError(problem, where=place, expected=expected, fix=fix)


def threads(size: int) -> int:
    """Threads for each of `size` processes on this machine: what the user has set, or an equal share."""
    thread_count = torch.get_num_threads()
    return thread_count if os.environ.get("OMP_NUM_THREADS") else max(thread_count // size, 1)


def _started(size: int) -> Processes:
    """Rank 0 and, unless torchrun has started them, the others."""
    if launched() > 1:
        store, _, _ = next(rendezvous("env://", timeout=FOR_EVER))
        return Processes(World(0, size), (), store)
    # A port that the system chooses is free, and is taken at once.
    store = TCPStore(HOST, 0, size, is_master=True, timeout=FOR_EVER, wait_for_workers=False)
    shared = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": HOST, "MASTER_PORT": store.port}
    shared |= {"OMP_NUM_THREADS": threads(size), "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")}
    children = tuple(_child({**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in range(1, size))
    return Processes(World(0, size), children, store)


def _child(variables: Mapping[str, object]) -> subprocess.Popen[bytes]:
    """A worker. Its standard input is a pipe that nobody writes to: it closes when this process dies."""
    command = [sys.executable, "-m", "pipeline.run.distributed.worker", *(["--debug"] if "--debug" in sys.argv else [])]
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


@contextmanager
def _ranked(size: int) -> Iterator[None]:
    """The variables by which Accelerate knows that it is one of several, and this process's share of the threads.

    Only while all train: what is measured beside it must not depend on the number of processes.
    """
    share = threads(size)
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    variables["OMP_NUM_THREADS"] = str(share)
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        with _computing_with(share):
            yield
    finally:
        for name in new:
            del os.environ[name]


@contextmanager
def _computing_with(thread_count: int) -> Iterator[None]:
    """So many threads for as long as the context lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(thread_count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
