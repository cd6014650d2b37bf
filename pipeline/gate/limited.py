"""Limits on what benchmark stages measure, checked against the stages before any work."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.base.use import nearest
from pipeline.errors import ConfigError
from pipeline.gate.budget import Budget
from pipeline.gate.limits import RowLimit
from pipeline.records.figures import runtime_of
from pipeline.stage import Stage

ADD = "Add `- {use: benchmark.latency}` to stages"

Chain = Sequence[tuple[str, Stage]]


def check_rows(budget: Budget, stages: Chain) -> list[str]:
    """Warns where the limits are kept by a model that is not the last.

    Raises:
        ConfigError: no stage measures what is limited, or none where a limit says.
    """
    limits = [(kind, limit) for kind, of_kind in budget.on_rows.items() for limit in of_kind]
    if not limits:
        return []
    measuring = [i for i, (_, stage) in enumerate(stages) if stage.host_bound]
    if not measuring:
        raise ConfigError(f"{limits[0][0]} is limited and no stage measures it", where="budget", fix=ADD)
    for kind, limit in limits:
        check_place(kind, limit, [stages[i][1] for i in measuring])
    return list(dict.fromkeys(_of_another_model(limits, stages, measuring)))


def check_choosing(choosing: RowLimit | None, stages: Chain) -> None:
    """Refuse a choice among runtimes where no stage measures any, or none where it says."""
    if choosing is None:
        return
    measuring = [stage for _, stage in stages if stage.host_bound]
    if not measuring:
        raise ConfigError("a runtime is to be chosen and no stage measures one", where="choose", fix=ADD)
    check_place("the choice", choosing, measuring, "choose")


def check_place(kind: str, limit: RowLimit, stages: Sequence[Stage], where: str = "budget") -> None:
    """Refuse a limit on a runtime, threads or batch that no stage measures; of stages that do not say, each may.

    Args:
        kind: of the limit, for the message.
        limit: which rows it is on.
        stages: that measure.
        where: the key of the file.
    """
    by_stage = [stage.timed_in() for stage in stages]
    rows = [row for stage_rows in by_stage for row in stage_rows]
    if not all(by_stage) or any(map(limit.is_of, rows)):
        return
    problem = f"{kind} is limited in {limit.place}, and no stage measures it there"
    raise ConfigError(problem, where=where, fix=_hint(limit, rows))


def _hint(limit: RowLimit, rows: Sequence[Mapping[str, Any]]) -> str:
    """The nearest runtime, or what is measured in it."""
    names = list(dict.fromkeys(name for row in rows for name in (str(row["runtime"]), runtime_of(row))))
    if limit.runtime is not None and limit.runtime not in names:
        known = nearest(limit.runtime, names).removeprefix("; ").removesuffix("?")
        return f"{known[:1].upper()}{known[1:]}, or add it to `runtimes` of benchmark.latency"
    own = [row for row in rows if limit.model_copy(update={"threads": None, "batch": None}).is_of(row)]
    measured = " and ".join(
        f"`{name}: {sorted({int(row[name]) for row in own})}`" for name in ("threads", "batch") if own
    )
    return f"It measures {measured}"


def _of_another_model(limits: Sequence[tuple[str, RowLimit]], stages: Chain, measuring: Sequence[int]) -> Iterator[str]:
    """A warning of each limit whose last measurement is followed by a stage that may change the model."""
    for kind, limit in limits:
        own = [i for i in measuring if not stages[i][1].timed_in() or any(map(limit.is_of, stages[i][1].timed_in()))]
        later = [place for place, _ in stages[own[-1] + 1 :] if limit.runtime is None or "(export." not in place]
        later = [place for place in later if place not in {stages[i][0] for i in measuring}]
        if later:
            yield f"budget: {kind} is measured before {later[0]}, whose model may be another"
