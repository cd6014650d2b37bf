"""What holds on one machine alone: measured anew where it is limited, left out where it is measured afterwards."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.build.build import build
from pipeline.build.source import load_config
from pipeline.errors import ConfigError, StageError
from pipeline.records.figures import metrics
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record
from pipeline.run import plan
from pipeline.run.executor import Executor
from pipeline.run.recorded import latency_record
from pipeline.run.store.changes import changed
from pipeline.run.store.key import Keys
from pipeline.run.store.store import Store
from pipeline.runner import resume, run
from tests.aliases import Make
from tests.users import chain_of, stage_file

CLOCK = stage_file(
    """
    with open(ctx.directory.parents[2] / "clock.txt", "a") as file:
        file.write(self.label)
    ratio = {"value": 0.5, "low": 0.4, "high": 0.6, "verdict": "faster"}
    ctx.report("latency", [{"runtime": "onnxruntime", "threads": 1, "batch": 1, "p50_ms": 0.1, "ratio": ratio}])
    return model
    """,
    "host_bound: ClassVar[bool] = True\nlabel: str = 'one'",
    form="AnyForm",
)
CHAIN = chain_of("noise.py, strength: 0.2", "clock.py", baseline="noise.py")
LIMIT = "budget: {latency: {max: 0.9}}\n"


def timed(chain: Path) -> str:
    """A character for each time that the clock ran."""
    file = chain.parent / "runs" / "clock.txt"
    return file.read_text() if file.exists() else ""


def done(chain: Path, **given: Any) -> Record:
    return run(chain, runs=chain.parent / "runs", track=False, **given)


def test_without_a_limit_a_latency_is_taken_from_an_earlier_run_with_a_warning(quick: Make) -> None:
    chain = quick(CHAIN, **{"clock.py": CLOCK})
    first, second = done(chain), done(chain)
    assert len(timed(chain)) == 3
    assert [record.stages[-1].cached for record in (first, second)] == [False, True]
    assert "stages[1] (clock.py): its figures are those of an earlier run on this machine" in second.warnings


def test_a_limited_latency_is_measured_anew_in_each_run(quick: Make) -> None:
    chain = quick(CHAIN + LIMIT, **{"clock.py": CLOCK})
    for times in (1, 2):
        record = done(chain)
        assert len(timed(chain)) == 3 * times
        assert [stage.cached for stage in record.stages] == [times > 1, False]
        assert not [text for text in record.warnings if "earlier run" in text]
        assert {gate.name: gate.verdict for gate in record.gates} == {"latency": "pass"}


def test_a_run_that_is_resumed_keeps_the_latency_that_it_measured(quick: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = quick(CHAIN + "  - {use: look.py}\n" + LIMIT, **{"clock.py": CLOCK})
    make = Executor.make

    def failing(self: Executor, place: str, *args: Any) -> Any:
        if "look.py" in place:  # after the clock
            raise StageError("no luck")
        return make(self, place, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Executor, "make", failing)
        with pytest.raises(StageError, match="no luck"):
            done(chain)
    (folder,) = (path.parent for path in (chain.parent / "runs").glob("*/record.json"))
    record = resume(folder, track=False)
    assert len(timed(chain)) == 3
    assert [stage.cached for stage in record.stages] == [True, False, False]
    assert [gate.verdict for gate in record.gates] == ["pass"]
    assert resume(folder.rename(folder.parent / "elsewhere"), track=False).stages[1].latency == record.stages[1].latency


def test_the_run_is_part_of_the_key_only_of_what_is_limited(quick: Make) -> None:
    def parts(chain: Path, run: str, position: int) -> Any:
        built = build(*load_config(chain))
        return Keys(built, torch.device("cpu"), run=run).stage(built.stages[position][1], "x", {"digest": "m"}, None)

    for limit in (LIMIT, "budget: {memory: {max: 1 GB}}\n", "budget: {startup: {max: 9 s}}\n"):
        chain = quick(CHAIN + limit, **{"clock.py": CLOCK})
        assert changed(parts(chain, "a", 1), parts(chain, "b", 1)) == ['run: "a" -> "b"']
        assert parts(chain, "a", 0) == parts(chain, "b", 0)
    chain = quick(CHAIN + "budget: {size: {max: 1 MB}}\n", **{"clock.py": CLOCK})
    assert parts(chain, "a", 1) == parts(chain, "b", 1)


def test_plan_says_that_a_limited_latency_would_be_measured(quick: Make) -> None:
    chain = quick(CHAIN + LIMIT, **{"clock.py": CLOCK})
    record = done(chain)
    states = plan.states(build(*load_config(chain)), Store(chain.parent / "runs" / "store"))
    assert [state["state"] for state in states] == ["cached", "cached", "would run"]
    assert states[-1]["why"] == [f'run: "{record.run}" -> "a new run"']


def test_a_limit_that_no_stage_measures_is_refused_with_its_line(quick: Make) -> None:
    chain = quick(CHAIN.replace("  - {use: clock.py}\n", "") + LIMIT, **{"clock.py": CLOCK})
    message = (
        r"chain.yaml:\d+: budget: latency is limited and no stage measures it\. "
        r"Add `- \{use: benchmark.latency\}` to stages\.$"
    )
    with pytest.raises(ConfigError, match=message):
        build(*load_config(chain))


def test_a_limit_on_a_model_that_is_not_the_last_is_a_warning(quick: Make) -> None:
    chain = quick(CHAIN + "  - {use: export.onnx}\n" + LIMIT, **{"clock.py": CLOCK})
    text = "budget: latency is measured before stages[2] (export.onnx), whose model may be another"
    assert text in build(*load_config(chain)).warnings
    chain = quick(CHAIN + LIMIT, **{"clock.py": CLOCK})
    assert not build(*load_config(chain)).warnings


def test_a_committed_model_that_is_not_there_is_refused_before_any_work(quick: Make) -> None:
    chain = quick(CHAIN + "budget: {size: {max: 1.1, of: expected}}\n", **{"clock.py": CLOCK})
    with pytest.raises(ConfigError, match=r"chain.yaml:\d+.*expected.json: there is no such file.*shrink expect"):
        done(chain)
    assert not (chain.parent / "runs").exists()


WITHIN = "  - {use: clock.py, label: two}\n  - {use: export.onnx}\n  - {use: clock.py}\n"
INNER = CHAIN.replace("  - {use: clock.py}\n", WITHIN)


def test_a_chain_can_leave_out_what_is_measured_afterwards(quick: Make) -> None:
    baseline = "  - {use: noise.py}\n"
    chain = quick(INNER.replace(baseline, baseline + "  - {use: clock.py}\n", 1) + LIMIT, **{"clock.py": CLOCK})
    record = done(chain, benchmarks=False)
    assert timed(chain) == ""
    assert [(stage.position, stage.name) for stage in record.stages] == [(0, "noise.py"), (2, "export.onnx")]
    assert [gate.verdict for gate in record.gates] == ["skipped"]
    whole = done(chain)
    assert [stage.digest for stage in whole.stages if stage.name != "clock.py"] == [s.digest for s in record.stages]


def test_what_was_measured_afterwards_is_recorded_as_if_the_stage_had_run(quick: Make) -> None:
    chain = quick(INNER, **{"clock.py": CLOCK})
    whole, record = done(chain), done(chain, benchmarks=False)
    given: list[tuple[int, str]] = [(1, "two"), (3, "one")]
    for position, label in given:
        expected = whole.stages[position]
        made = latency_record(record, position, "clock.py", {"label": label}, expected.latency, 1.23456)  # type: ignore[arg-type]
        before = record.stages[position - 1]
        record.stages.insert(position, made)
        differing = {"seconds", "finished", "cached", "key", "uses"}
        assert made.model_dump(exclude=differing) == expected.model_dump(exclude=differing)
        assert (made.cached, made.changed, made.key, made.seconds) == (False, False, None, 1.235)
        assert made.uses == before.uses
    record.save()
    assert Record.load(Path(record.folder)).stages == record.stages


def test_rows_that_are_none_and_a_run_without_a_model_are_errors(quick: Make) -> None:
    record = done(quick(CHAIN, **{"clock.py": CLOCK}), benchmarks=False)
    with pytest.raises(StageError, match=r"(?s)stages\[1\] \(clock.py\).*A report named `latency` is a list of"):
        latency_record(record, 1, "clock.py", {}, {"failure": "no luck"}, 1)
    empty = record.model_copy(update={"stages": [], "baseline": None})
    with pytest.raises(StageError, match="no measured model"):
        latency_record(empty, 1, "clock.py", {}, [], 1)


def test_distributions_are_no_figures(quick: Make) -> None:
    stage = done(quick(CHAIN, **{"clock.py": CLOCK})).stages[-1]
    row = stage.latency[0]
    more: dict[str, Any] = {"distribution_ms": {"model": [0.1] * 101, "baseline": [0.2] * 101}}
    more |= {"round_ratios": [0.5, 0.6], "beside": ["a", "b"], "measured": "2026-01-01T00:00:00+00:00"}
    assert metrics(StageRecord(**{**stage.model_dump(), "latency": [{**row, **more}]})) == metrics(stage)
    assert metrics(stage)["latency.onnxruntime.threads1.batch1.ratio.high"] == 0.6
    assert metrics(stage)["validation_score"] == stage.validation_score
    assert not [name for name in metrics(stage) if "class" in name]
