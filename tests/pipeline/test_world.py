"""Several processes that talk to each other, and what they see where one is gone."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from pipeline.world import ALONE, FOR_EVER, World, is_lost, join

FORK = multiprocessing.get_context("fork")
SIZE = 3


def main(rank: int, port: int, act: Callable[[World], Any], results: Any) -> None:
    store: Store = TCPStore("127.0.0.1", port, SIZE, is_master=False, timeout=FOR_EVER)
    world = join(store, rank, SIZE)
    results.put((rank, act(world)))
    results.close()
    results.join_thread()
    dist.destroy_process_group()


def together(act: Callable[[World], Any]) -> list[Any]:
    """What `act` gives in each of three processes."""
    store = TCPStore("127.0.0.1", 0, SIZE, is_master=True, timeout=FOR_EVER, wait_for_workers=False)
    results = FORK.Queue()
    children = [FORK.Process(target=main, args=(rank, store.port, act, results)) for rank in range(SIZE)]
    for child in children:
        child.start()
    found = dict(results.get(timeout=60) for _ in children if child)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * SIZE
    return [found[rank] for rank in range(SIZE)]


def test_alone_it_asks_nobody() -> None:
    assert ALONE.main
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    assert ALONE.tell({"a": 1}) == {"a": 1}
    assert ALONE.mean(torch.tensor(2.5)) == 2.5
    ALONE.wait()


def test_any_is_set_where_one_has_set_it() -> None:
    flags = [(False, False, False), (False, True, False), (True, True, True)]
    assert together(lambda world: [world.any(row[world.rank]) for row in flags]) == [[False, True, True]] * SIZE


def test_the_mean_is_of_all() -> None:
    numbers = torch.tensor([1.0, 2.5, -8.0], dtype=torch.float64)
    found = together(lambda world: float(world.mean(numbers[world.rank])))
    assert found == [pytest.approx(float(numbers.mean()), abs=1e-12)] * SIZE


def test_what_rank_0_tells_reaches_all_and_what_others_tell_nobody() -> None:
    told = [{"text": "é" * 1000, "list": [1, 2.5, None, True]}, None, [], "x", {}]
    assert together(lambda world: [world.tell(value if world.main else "other") for value in told]) == [told] * SIZE


def test_nobody_passes_before_all_are_there(tmp_path: Path) -> None:
    def act(world: World) -> int:
        if world.rank == 2:
            time.sleep(0.3)
        (tmp_path / str(world.rank)).touch()
        world.wait()
        return len(list(tmp_path.iterdir()))

    assert together(act) == [SIZE] * SIZE


@pytest.mark.parametrize("ask", [
    lambda world: world.any(False), lambda world: world.mean(torch.zeros(())), lambda world: world.tell(["b" * 99]),
])  # fmt: skip
def test_a_process_that_is_killed_is_an_error_that_is_told_apart(ask: Callable[[World], Any]) -> None:
    store = TCPStore("127.0.0.1", 0, 2, is_master=True, timeout=FOR_EVER, wait_for_workers=False)

    def other() -> None:
        world = join(TCPStore("127.0.0.1", store.port, 2, is_master=False, timeout=FOR_EVER), 1, 2)
        ask(world)
        os.kill(os.getpid(), signal.SIGKILL)

    child = FORK.Process(target=other)
    child.start()
    world = join(store, 0, 2)
    try:
        ask(world)
        child.join(60)
        with pytest.raises(RuntimeError) as raised:
            list(map(ask, [world] * 100))  # a small message may still be sent to a process that is gone
        assert is_lost(raised.value)
    finally:
        dist.destroy_process_group()


def test_other_errors_are_told_apart() -> None:
    assert not is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_lost(dist.DistBackendError("NCCL error"))
