"""Several processes that talk to each other, and what they see where one is gone."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from pipeline.base.world import ALONE, FOR_EVER, World, is_lost, join
from tests.forked import PATIENCE, SERVER, die, start

SIZE = 3


def main(rank: int, port: int, act: Callable[[World], Any], results: Any) -> None:
    store: Store = TCPStore("127.0.0.1", port, SIZE, is_master=False, timeout=FOR_EVER)
    results.put((rank, act(join(store, rank, SIZE))))
    results.close()
    results.join_thread()
    dist.destroy_process_group()


def together(act: Callable[[World], Any]) -> list[Any]:
    """What `act`, which is pickled, gives in each of three processes."""
    store = TCPStore("127.0.0.1", 0, SIZE, is_master=True, timeout=FOR_EVER, wait_for_workers=False)
    results = SERVER.Queue()
    children = [start(main, rank, store.port, act, results) for rank in range(SIZE)]
    found = dict(results.get(timeout=PATIENCE) for _ in children)
    for child in children:
        child.join(PATIENCE)
    assert [child.exitcode for child in children] == [0] * SIZE
    return [found[rank] for rank in range(SIZE)]


def test_alone_it_asks_nobody() -> None:
    assert ALONE.main
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    assert (ALONE.broadcast({"a": 1}), ALONE.mean(torch.tensor(2.5))) == ({"a": 1}, 2.5)
    ALONE.wait()


def any_of(rows: list[tuple[bool, ...]], world: World) -> list[bool]:
    return [world.any(row[world.rank]) for row in rows]


def test_any_is_set_where_one_has_set_it() -> None:
    flags = [(False, False, False), (False, True, False), (True, True, True)]
    assert together(partial(any_of, flags)) == [[False, True, True]] * SIZE


def mean_of(numbers: list[float], world: World) -> float:
    return float(world.mean(torch.tensor(numbers[world.rank], dtype=torch.float64)))


def test_the_mean_is_of_all() -> None:
    numbers = [1.0, 2.5, -8.0]
    assert together(partial(mean_of, numbers)) == [pytest.approx(sum(numbers) / 3, abs=1e-12)] * SIZE


def told_by_main(values: list[Any], world: World) -> list[Any]:
    return [world.broadcast(value if world.main else "other") for value in values]


def test_what_rank_0_tells_reaches_all_and_what_others_tell_nobody() -> None:
    told = [{"text": "é" * 1000, "list": [1, 2.5, None, True]}, None, [], "x", {}]
    assert together(partial(told_by_main, told)) == [told] * SIZE


def arrive(folder: Path, world: World) -> int:
    if world.rank == 2:
        time.sleep(0.3)
    (folder / str(world.rank)).touch()
    world.wait()
    return len(list(folder.iterdir()))


def test_nobody_passes_before_all_are_there(tmp_path: Path) -> None:
    assert together(partial(arrive, tmp_path)) == [SIZE] * SIZE


def ask_any(world: World) -> Any:
    return world.any(False)


def ask_mean(world: World) -> Any:
    return world.mean(torch.zeros(()))


def ask_tell(world: World) -> Any:
    return world.broadcast(["b" * 99])


def ask_and_die(port: int, ask: Callable[[World], Any]) -> None:
    ask(join(TCPStore("127.0.0.1", port, 2, is_master=False, timeout=FOR_EVER), 1, 2))
    die()


@pytest.mark.parametrize("ask", [ask_any, ask_mean, ask_tell])
def test_a_process_that_is_killed_is_an_error_that_is_told_apart(ask: Callable[[World], Any]) -> None:
    store = TCPStore("127.0.0.1", 0, 2, is_master=True, timeout=FOR_EVER, wait_for_workers=False)
    child = start(ask_and_die, store.port, ask)
    world = join(store, 0, 2)
    try:
        ask(world)
        child.join(PATIENCE)
        with pytest.raises(RuntimeError) as raised:
            list(map(ask, [world] * 100))  # a small message may still be sent to a process that is gone
        assert is_lost(raised.value)
    finally:
        dist.destroy_process_group()


def test_other_errors_are_told_apart() -> None:
    assert not is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_lost(dist.DistBackendError("NCCL error"))
