"""`shrink compare` from end to end, in real processes."""

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.compare.compare import compare, compare_runs
from pipeline.errors import ConfigError
from pipeline.records.comparison import ComparisonRecord
from pipeline.records.record import Record
from pipeline.runner import run
from tests.forked import Shrink, children, shrink
from tests.users import stage_file

Make = Callable[..., Path]

FAILING = "  broken:\n    - {use: fail.py}\n    - {use: export.onnx}\n"
KILLED = "  killed:\n    - {use: fail.py, killed: true}\n    - {use: export.onnx}\n"


def events(runs: Path, kind: str) -> list[dict[str, Any]]:
    lines = [line for file in runs.glob("*/journal.jsonl") for line in file.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.mark.slow
def test_all_strategies_run_and_one_that_fails_stops_no_other(strategies: Make, tmp_path: Path) -> None:
    file, runs = strategies(FAILING + KILLED), tmp_path / "runs"
    ended = shrink("compare", file, "--into", runs, "--jobs", "2", "--json", cwd=tmp_path, prepare=children)
    assert ended.returncode == 3, ended.stderr
    found = json.loads(ended.stdout)
    jsonschema.validate(found, ComparisonRecord.model_json_schema())
    record = ComparisonRecord.load(Path(found["folder"]))
    assert record.model_dump_json() == ComparisonRecord.model_validate(found).model_dump_json()
    by_name = {strategy.name: strategy for strategy in record.strategies}
    assert list(by_name) == ["baseline", "noisy", "close", "broken", "killed"]

    assert by_name["broken"].failures["0"].exit_code == 3
    assert "it was told to fail" in by_name["broken"].failures["0"].message
    assert by_name["killed"].failures["0"].exit_code == 128 + signal.SIGKILL
    assert by_name["broken"].size_bytes is None
    assert not by_name["broken"].on_front

    noisy, close = by_name["noisy"], by_name["close"]
    assert close.score.mean > noisy.score.mean
    assert by_name["broken"].failed_runs
    assert {test.first: test.second for test in record.tests} == {"noisy": "close"}
    assert record.tests[0].difference.value < 0
    assert record.test_uses == 6  # the baseline, two in torch's form, two exported, one quantized
    assert [made["place"] for made in events(runs, "made")].count("baseline[0] (fit.py)") == 1

    records = [Record.load(runs / s.runs[0]) for s in (noisy, close)]
    rows: list[Any] = [record.stages[-1].latency[0] for record in records]
    for row, stage in zip(rows, [record.stages[-2] for record in records], strict=True):
        assert (row["score"]["value"], row["score"]["verdict"]) == (stage.score, "same decisions")
        assert row["score"]["retention"] == stage.retention.model_dump()
    assert [row["beside"] for row in rows] == [["close, seed 0"], ["noisy, seed 0"]]
    assert all(s.latency and s.latency[0].low and s.latency[0].low < s.latency[0].value for s in (noisy, close))
    for name in ("report.html", "summary.md", "comparison.json"):
        assert (Path(record.folder) / name).stat().st_size > 0


@pytest.mark.slow
def test_several_seeds_give_mean_and_deviation(strategies: Make, tmp_path: Path) -> None:
    fails_once = (
        "  unlucky:\n    - {use: fail.py, seed: 1}\n    - {use: fit.py, noise: 1.5}\n    - {use: export.onnx}\n"
    )
    file = strategies(fails_once + "compare: {seeds: 2}\n", timed=False)
    record = compare([file], runs=tmp_path / "runs", track=False)
    by_name = {strategy.name: strategy for strategy in record.strategies}
    assert record.seeds == [0, 1]
    assert [len(by_name[name].runs) for name in ("noisy", "unlucky")] == [2, 1]
    assert list(by_name["unlucky"].failures) == ["1"]
    noisy = by_name["noisy"]
    means = [Record.load(tmp_path / "runs" / name).stages[-1].score for name in noisy.runs]
    assert noisy.score.mean == pytest.approx(sum(means) / 2)
    assert noisy.score.deviation
    assert noisy.score.deviation > 0
    assert by_name["baseline"].score.count == 2
    # Noise is drawn alike for the same seed, so over the seeds that both have nothing differs.
    (same,) = [test for test in record.tests if {test.first, test.second} == {"noisy", "unlucky"}]
    assert same.difference.value == 0
    assert not same.distinguishable


@pytest.mark.slow
def test_a_budget_is_judged_again_once_latencies_are_there(strategies: Make, tmp_path: Path) -> None:
    file = strategies("budget: {latency: {max: 100}}\nchoose: {retention: 0.01}\n")
    record = compare([file], runs=tmp_path / "runs", track=False)
    assert [strategy.verdicts for strategy in record.strategies] == [[], ["pass"], ["pass"]]
    kept = Record.load(tmp_path / "runs" / record.strategies[1].runs[0])
    assert [(gate.name, gate.verdict) for gate in kept.gates] == [("latency", "pass")]
    assert record.chosen
    assert record.chosen.pair
    medians = {s.name: s.runtimes[0]["median_ms"]["value"] for s in record.strategies if s.runtimes}
    assert record.chosen.pair.strategy == min(medians, key=lambda name: medians[name])
    assert kept.chosen
    assert kept.chosen.pair


@pytest.mark.slow
def test_runs_that_are_there_are_compared_without_running(strategies: Make, tmp_path: Path) -> None:
    file, runs = strategies(timed=False), tmp_path / "runs"
    made = [run(file, strategy=name, runs=runs, track=False, benchmarks=False) for name in ("noisy", "close")]
    before = {path for path in runs.iterdir() if path.name != "test_uses.jsonl"}
    ended = shrink("compare", "--runs", *(one.folder for one in made), "--into", tmp_path / "other", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert {path for path in runs.iterdir() if path.name != "test_uses.jsonl"} == before
    (folder,) = (tmp_path / "other").glob("*-compared-*")
    record = ComparisonRecord.load(folder)
    assert [strategy.name for strategy in record.strategies] == ["baseline", "noisy", "close"]
    assert Path(folder.parent / record.strategies[1].runs[0]).resolve() == Path(made[0].folder)
    axes = ("--set", "compare.axes=[size, macs, retention]")
    again = shrink("compare", "--runs", *(one.folder for one in made), *axes, "--into", "third", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    (folder,) = (tmp_path / "third").glob("*-compared-*")
    assert ComparisonRecord.load(folder).axes == ["size", "macs", "retention"]
    assert "--set 'compare.axes=[size, macs, retention]'" in unescape((folder / "report.html").read_text())


def test_what_says_how_to_run_is_refused_beside_runs(tmp_path: Path) -> None:
    ended = shrink("compare", "--runs", "a", "--set", "seed=1", cwd=tmp_path)
    assert ended.returncode == 2
    assert "`seed` is set, and with --runs nothing is run; expected a key of `compare:`" in ended.stderr
    ended = shrink("compare", "--runs", "a", "--limit", "5", cwd=tmp_path)
    assert ended.returncode == 2
    assert "with --runs nothing is run" in ended.stderr


@pytest.mark.slow
def test_a_test_split_that_the_seed_draws_is_a_failure_of_the_other_seeds(strategies: Make, tmp_path: Path) -> None:
    file = strategies("compare: {seeds: 2}\n", timed=False)
    data = file.with_name("data.py")
    data.write_text(data.read_text().replace("quadrants(128, 2)", "quadrants(128, 50 + torch.initial_seed())"))
    record = compare([file], runs=tmp_path / "runs", track=False)
    told = [strategy.failures for strategy in record.strategies[1:]]
    assert [list(failures) for failures in told] == [["1"], ["1"]]
    assert "another than that of seed 0" in told[0]["1"].message
    assert [len(strategy.runs) for strategy in record.strategies] == [1, 1, 1]


def test_runs_of_one_chain_are_seeds_of_it_only_where_nothing_else_differs(strategies: Make, tmp_path: Path) -> None:
    file, runs = strategies(timed=False), tmp_path / "runs"
    given: dict[str, Any] = {"strategy": "noisy", "runs": runs, "track": False, "benchmarks": False}
    settings = (["seed=0"], ["seed=1"], ["seed=2", "stages.0.noise=1"])
    made = [run(file, overrides=overrides, **given) for overrides in settings]
    record = compare_runs([one.folder for one in made], runs=runs, track=False)
    assert [strategy.name for strategy in record.strategies][1:] == [one.run for one in made]
    record = compare_runs([one.folder for one in made[:2]], runs=runs, track=False)
    assert [(strategy.name, len(strategy.runs)) for strategy in record.strategies] == [("baseline", 2), ("noisy", 2)]
    with pytest.raises(ConfigError, match="a run is named twice"):
        compare_runs([made[0].folder, made[0].folder], runs=runs, track=False)


@pytest.mark.slow
def test_a_benchmark_before_the_end_times_the_model_that_comes_in_there(strategies: Make, tmp_path: Path) -> None:
    early = "  early:\n    - {use: fit.py}\n    - {use: benchmark.latency, rounds: 3, iterations: 10, warmup: 1}\n"
    file = strategies(early + "    - {use: export.onnx}\n    - {use: quantize.dynamic}\n", timed=False)
    record = compare([file], runs=tmp_path / "runs", track=False)
    (found,) = [strategy for strategy in record.strategies if strategy.name == "early"]
    kept = Record.load(tmp_path / "runs" / found.runs[0])
    assert [stage.position for stage in kept.stages] == [0, 1, 2, 3]
    assert kept.final.form == "onnx"
    assert found.size_bytes == kept.stages[-1].size_bytes != kept.stages[1].size_bytes
    assert kept.stages[1].latency
    assert kept.stages[1].digest == kept.stages[0].digest


@pytest.mark.slow
def test_a_model_that_cannot_be_timed_keeps_its_figures_and_the_exit_code_tells(
    strategies: Make, tmp_path: Path
) -> None:
    file = strategies()
    clock = "{use: clock.py, fails: noisy}"
    file.write_text(file.read_text().replace("{use: benchmark.latency, rounds: 3, iterations: 10, warmup: 1}", clock))
    ended = shrink("compare", file, "--into", tmp_path / "runs", "--json", cwd=tmp_path, prepare=children)
    assert ended.returncode == 3, ended.stderr
    noisy, close = ComparisonRecord.model_validate_json(ended.stdout).strategies[1:]
    assert "could not be timed" in noisy.failures["0"].message
    assert noisy.size_bytes
    assert not noisy.latency
    assert close.latency


def test_runs_on_other_test_data_are_refused(strategies: Make, tmp_path: Path) -> None:
    file, runs = strategies(timed=False), tmp_path / "runs"
    first = run(file, strategy="noisy", runs=runs, track=False, benchmarks=False)
    data = file.with_name("data.py")
    data.write_text(data.read_text().replace("quadrants(128, 2)", "quadrants(128, 9)"))
    second = run(file, strategy="noisy", runs=runs, track=False, benchmarks=False)
    with pytest.raises(ConfigError, match="measured on different test data"):
        compare_runs([first.folder, second.folder], runs=runs, track=False)
    with pytest.raises(ConfigError, match="this is no run folder"):
        compare_runs([tmp_path], runs=runs, track=False)


def working_in(folder: Path) -> list[int]:
    """The processes whose current folder it is."""
    pids = list[int]()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # it ended meanwhile, or is somebody else's
            pids += [int(link.parent.name)] * (link.readlink() == folder)
    return pids


def test_a_stop_reaches_all_processes_and_leaves_none(strategies: Make, tmp_path: Path) -> None:
    sleep = """
        for _ in range(600):
            time.sleep(0.1)
            if ctx.interrupted():
                raise Interruption('stopped')
        return model
        """
    file = strategies("  slow:\n    - {use: sleep.py}\n    - {use: export.onnx}\n", timed=False)
    file.with_name("sleep.py").write_text(stage_file(sleep))
    words = ("compare", str(file), "--into", str(tmp_path / "runs"))
    command = Shrink(tmp_path, *words, cwd=tmp_path, tracked=True, prepare=children)
    command.until(lambda: any("sleep" in event["place"] for event in events(tmp_path / "runs", "begin")))
    assert len(working_in(tmp_path)) > 1
    command.send(signal.SIGINT)
    code, said, _ = command.end()
    assert code == 130, said
    assert working_in(tmp_path) == []
    stopped = [r for r in map(Record.load, {f.parent for f in (tmp_path / "runs").glob("*/record.json")}) if r.failure]
    assert [record.failure.exit_code for record in stopped if record.failure] == [143]
