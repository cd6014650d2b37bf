"""Rounds of fresh processes: every model once a round, one process at a time, in an order that no drift favours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.errors import Interruption, ResourceError, StageError
from stages.benchmark.processes.process import Spec, time_process


class Participant(NamedTuple):
    """Who takes part in a round; the name is the model's label, and empty for the baseline."""

    role: Literal["model", "baseline", "again"]
    name: str = ""


BASELINE, AGAIN = Participant("baseline"), Participant("again")


@dataclass
class Failures:
    """Why models have no row of a cell, by name; `baseline` is why none has."""

    of: dict[str, StageError | ResourceError] = field(default_factory=dict)
    baseline: StageError | ResourceError | None = None

    def take(self, member: Participant, error: StageError | ResourceError) -> None:
        """Keep why one failed."""
        if member.role == "model":
            self.of[member.name] = error
        else:
            self.baseline = error

    @contextmanager
    def catching(self, member: Participant, interrupted: Callable[[], bool]) -> Iterator[None]:
        """Keep what is raised inside the block as why one failed; after Ctrl-C, which reaches children too, stop."""
        try:
            yield
        except (StageError, ResourceError) as error:
            if interrupted():
                raise Interruption("stopped while a process timed or answered") from error
            self.take(member, error)

    def copied(self) -> "Failures":
        """The same, apart from what fails from now on."""
        return Failures({**self.of}, self.baseline)

    def error(self, name: str) -> StageError | ResourceError | None:
        """Why the model of that name has no row, None where it has one."""
        return self.of.get(name, self.baseline)


@dataclass(frozen=True)
class Timed:
    """What the processes of a model, or of the baseline, tell.

    Args:
        processes: of each that timed, the latencies in milliseconds.
        facts: what else it told.
        started: what those told that did one inference alone.
        throughput: by the number of requests at a time, what each of those told that had so many.
    """

    processes: list[list[float]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    started: list[dict[str, Any]] = field(default_factory=list)
    throughput: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def startups(self) -> list[dict[str, float]]:
        """The seconds of each process's start, in the order of the rounds."""
        return [one["startup"] for one in (*self.facts, *self.started)]


def turns(count: int, rounds: int) -> list[list[int]]:
    """The order of each round: positions 0 to count - 1, each once.

    Over `count` rounds each is first, second, ... once. An even count has every ordered pair of neighbours once too,
    and each second round is the mirror image of the one before; for an odd count the mirrored rounds follow after, so
    that both hold over 2 * count rounds. A drift then favours none, and neither does what a process leaves behind.

    Args:
        count: of those that take part; for none there are no orders.
        rounds: number of orders.

    Reference:
        E. J. Williams, "Experimental designs balanced for the estimation of residual effects of treatments",
        Australian Journal of Scientific Research A 2, 1949.
    """
    first = [(i + 1) // 2 if i % 2 else (count - i // 2) % count for i in range(count)]  # 0, 1, n - 1, 2, n - 2, ...
    half, is_odd = count // 2, count % 2
    orders = []
    for i in range(rounds if count else 0):
        block, step = divmod(i, count)
        # Far from the shift before, so that also a part of a block is as even as it can be.
        shift = step * half if is_odd else step // 2 + step % 2 * half
        order = [(place + shift) % count for place in first]
        orders.append(order[::-1] if is_odd and block % 2 else order)
    return orders


@dataclass(frozen=True)
class Group:
    """Who is compared with one another: the models and the baseline in one runtime.

    Args:
        specs: the spec of the process of each.
        failures: collects what fails: a model then takes part no longer, and without the baseline none does.
    """

    specs: Mapping[Participant, Spec]
    failures: Failures

    def is_wanted(self, member: Participant) -> bool:
        """Whether a process of it still says something."""
        left = [one for one in self.specs if one.role == "model" and not self.failures.error(one.name)]
        return bool(left) and (member in left or member.role != "model")


def in_turns(
    groups: Sequence[Group],
    rounds: int,
    folder: Path,
    advance: Callable[..., None],
    interrupted: Callable[[], bool],
) -> list[dict[Participant, Timed]]:
    """Time each spec once a round, each in a fresh process; what each group's tell.

    In a round the groups follow each other in turns, and in each its members, so that those are near in time.

    Args:
        groups: all that are compared.
        rounds: processes of each.
        folder: where specs and results are written.
        advance: advance(1, note) is called after each process.
        interrupted: whether to stop.

    Raises:
        Interruption: a stop was asked for.
    """
    timed = [{member: Timed() for member in group.specs} for group in groups]
    for group, of, member in _in_order(groups, timed, rounds):
        if interrupted():
            raise Interruption("stopped between two processes that time")
        if group.is_wanted(member):
            with group.failures.catching(member, interrupted):
                samples, facts = time_process(group.specs[member], folder)
                of[member].processes.append(samples)
                of[member].facts.append(facts)
        advance(1, f"{group.specs[member]['runtime']}, threads {group.specs[member]['threads']}")
    return timed


def _in_order(
    groups: Sequence[Group], timed: Sequence[dict[Participant, Timed]], rounds: int
) -> Iterator[tuple[Group, dict[Participant, Timed], Participant]]:
    orders = [turns(len(group.specs), rounds) for group in groups]
    for i, order in enumerate(turns(len(groups), rounds)):
        for place in order:
            members = [*groups[place].specs]
            yield from ((groups[place], timed[place], members[j]) for j in (orders[place][i] if members else ()))
