"""The machines of a stage, each opened when it is first needed and once, whatever runs there."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from stages.benchmark.hosts.here import HERE
from stages.benchmark.hosts.host import Host, Machine


class Machines:
    """What runs the processes of hosts; all of it is given back at the end of its `with`."""

    def __init__(self) -> None:
        self._opened: dict[Host, Machine] = {}
        self._stack = ExitStack()

    def of(self, host: Host | None) -> Machine:
        """That of a host, or of this machine: the same for equal settings."""
        if host is None:
            return HERE
        if host not in self._opened:
            self._opened[host] = self._stack.enter_context(host.machine())
        return self._opened[host]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
