"""The processes that train together, seen from one of them. Rank 0 alone stores, tracks, measures and prints."""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor
from torch import distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

FOR_EVER = timedelta(days=30)  # the others wait while rank 0 does what it does alone
GONE = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


@dataclass(frozen=True)
class World:
    """This process among `size`; one that is alone asks nobody."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor([float(flag)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a number over the processes, on the CPU."""
        if self.size == 1:
            return value
        total = value.detach().cpu().double().reshape(1)
        dist.all_reduce(total)
        return total[0] / self.size

    def broadcast(self, value: JsonValue = None) -> Any:
        """The value of rank 0 in all processes, as JSON: nothing is pickled. What the others give is not read."""
        if self.size == 1:
            return value
        content = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8) if self.main else torch.empty(0)
        length = torch.tensor([len(content)])
        dist.broadcast(length, src=0)
        buffer = content if self.main else torch.empty(int(length.item()), dtype=torch.uint8)
        dist.broadcast(buffer, src=0)
        return json.loads(bytes(buffer.tolist()))

    def wait(self) -> None:
        """Return when all processes are here."""
        self.any(False)


ALONE = World()


def join(store: Store, rank: int, size: int) -> World:
    """This process's place among `size` that meet at a store; a collective of theirs waits for days.

    On a GPU machine tensors of the GPU go by NCCL, all others by gloo.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=FOR_EVER)
    return World(rank, size)


def is_lost(error: BaseException) -> bool:
    """Whether an error of torch says that another process is gone."""
    text = str(error)
    return isinstance(error, dist.DistError) or any(mark in text for mark in GONE)
