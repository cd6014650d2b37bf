"""The command line: what goes to which stream, and an exit code for every ending."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline import runner
from pipeline.cli import app
from pipeline.records.record import Record
from tests import forked
from tests.aliases import Make, Patch
from tests.users import MINE_ALONE, only_run, stage_file

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shrink(shrink: Make, monkeypatch: Patch, tmp_path: Path) -> Make:
    """shrink("run", ...): the command in this process, without MLflow, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "open_tracking", lambda *_, **__: nullcontext())
    monkeypatch.setattr(app.tempfile, "tempdir", str(tmp_path))
    return shrink


@pytest.fixture
def chain(project: Make) -> Callable[..., Path]:
    """chain(body, budget): a pipeline file whose one stage is a user's with this body."""
    return lambda body="return model", budget="": project(
        f"{MINE_ALONE}budget: {{{budget}}}\n", **{"mine.py": stage_file(body)}
    )


def messages(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("shrink: ")]


def test_a_run_ends_with_a_table_on_stdout_and_its_log_on_stderr(shrink: Make, chain: Make, tmp_path: Path) -> None:
    ended = shrink("run", chain())
    assert ended.code == 0
    record = Record.load(only_run(tmp_path / "runs"))
    assert "mine.py" in ended.out
    assert f"{record.baseline.score:.4f}" in ended.out
    assert f"run: runs/{record.run}" in ended.out
    assert "stages[0] (mine.py)" in ended.err
    assert "stages[0]" not in ended.out


def test_json_is_one_document_on_stdout_that_is_the_record(shrink: Make, chain: Make, tmp_path: Path) -> None:
    body = "print('a stage that prints'); return model"
    ended = shrink("run", chain(body), "--json", "--runs", tmp_path / "elsewhere")
    folder = only_run(tmp_path / "elsewhere")
    assert json.loads(ended.out) == json.loads((folder / "record.json").read_text())
    assert "a stage that prints" in ended.err


@pytest.mark.parametrize(("budget", "code", "verdict"), [
    ("size: {max: 1 MB}", 0, "pass: size_bytes is"),
    ("size: {max: 1 kB}", 1, "fail: size_bytes is"),
    ("retention: {min: 0.99}", 5, "inconclusive: retention is 1.000"),
    ("retention: {min: 0.99}, size: {max: 1 kB}", 1, "fail: size_bytes is"),
])  # fmt: skip
def test_the_budgets_verdict_is_the_exit_code(shrink: Make, chain: Make, budget: str, code: int, verdict: str) -> None:
    ended = shrink("run", chain(budget=budget))
    assert ended.code == code
    assert verdict in ended.out


@pytest.mark.parametrize(("args", "message"), [
    (["run", "missing.yaml"], "shrink: config: there is no file missing.yaml"),
    (["run", "{chain}", "--set", "stages.0.strenght=1"], "there is no key `strenght`"),
    (["run", "{chain}", "--set", "seed=-1"], "`seed` is -1; expected"),
    (["run", "{chain}", "--set", "nonsense"], "there is no value; expected path=value"),
    (["plan", "missing.yaml"], "shrink: config: there is no file missing.yaml"),
    (["run"], "Missing"),
    (["run", "{chain}", "--nonsense"], "No such option"),
    (["shrivel"], "No such command"),
    ([], "Usage"),
], ids=" ".join)  # fmt: skip
def test_wrong_use_or_config_exits_2(shrink: Make, chain: Make, args: list[str], message: str, tmp_path: Path) -> None:
    ended = shrink(*(arg.format(chain=chain()) for arg in args))
    assert ended.code == 2
    assert message in ended.err + (ended.out if not args else "")
    assert "Traceback" not in ended.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("body", "code", "message"), [
    ("raise ValueError('no luck')", 3, "shrink: stages[0] (mine.py): ValueError: no luck"),
    ("return 3", 3, "shrink: stages[0] (mine.py): run gave int; expected TorchModel, as it is annotated"),
    ("raise OSError(28, 'No space left on device')", 4,
     "shrink: stages[0] (mine.py): OSError: [Errno 28] No space left"),
    ("raise KeyboardInterrupt", 130, "shrink: interrupted"),
])  # fmt: skip
def test_a_failing_stage_is_one_line_on_stderr(shrink: Make, chain: Make, body: str, code: int, message: str) -> None:
    ended = shrink("run", chain(body))
    assert (ended.code, ended.out) == (code, "")
    (line,) = messages(ended.err)
    assert line.startswith(message)
    assert "Traceback" not in ended.err


def test_debug_shows_the_traceback_down_to_the_users_line(shrink: Make, chain: Make) -> None:
    ended = shrink("run", chain("raise ValueError('no luck')"), "--debug")
    assert ended.code == 3
    assert "Traceback" in ended.err
    assert "mine.py" in ended.err.partition("Traceback")[2]


def broken(*_: Any, **__: Any) -> Any:
    raise AttributeError("'NoneType' object has no attribute 'score'")


@pytest.mark.parametrize("debug", [False, True])
def test_our_bug_keeps_its_traceback_in_a_file(shrink: Make, chain: Make, monkeypatch: Patch, debug: bool) -> None:
    monkeypatch.setattr("pipeline.run.chain.judge", broken)
    ended = shrink("run", chain(), *(["--debug"] if debug else []))
    assert ended.code == 70
    (line,) = messages(ended.err)
    message = "AttributeError: 'NoneType' object has no attribute 'score'"
    assert line.startswith(f"shrink: a bug of ours: {message}; the traceback")
    assert "in broken" in Path(line.rpartition(" ")[2]).read_text()
    assert ("Traceback" in ended.err) is debug


def test_memory_that_runs_out_is_no_bug(shrink: Make, chain: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    def exhausted(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("pipeline.run.chain.judge", exhausted)
    ended = shrink("run", chain())
    folder = only_run(tmp_path / "runs")
    (line,) = messages(ended.err)
    assert ended.code == 4
    assert line.startswith(f"shrink: {folder}: disk or memory ran out: no room. The chain needs about ")
    assert line.endswith(f" are free; `shrink resume {folder}` goes on.")
    assert Record.load(folder).failure is not None


def test_plan_shows_the_resolved_chain_and_trains_nothing(shrink: Make, project: Make, tmp_path: Path) -> None:
    ended = shrink("plan", project(), "--set", "stages.0.temperature=1")
    assert ended.code == 0
    assert all(text in ended.out for text in ("stages[0] (distill.logits)", "temperature: 1", "warning: stages[0]"))
    assert "hard_weight" not in ended.out  # has its default
    full = shrink("plan", project(), "--full", "--set", "stages.0.temperature=1").out
    assert "│ * temperature: 1" in full
    assert "│ hard_weight: 0.3" in full
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["store"]  # what was tried


def test_plan_shows_long_names_whole(shrink: Make, project: Make) -> None:
    chain = MINE_ALONE.replace("mine.py", "mine.py, layer: " + 90 * "Q")
    ended = shrink("plan", project(chain, **{"mine.py": stage_file(fields="layer: str")}))
    assert ended.code == 0, ended.err
    assert ended.out.count("Q") == 90


def test_plan_as_json_is_one_document(shrink: Make, project: Make) -> None:
    planned = json.loads(shrink("plan", project(), "--json", "--set", "seed=3").out)
    assert planned["seed"] == 3
    assert [entry["place"] for entry in planned["chain"]] == [
        "baseline[0] (train.supervised)", "stages[0] (distill.logits)", "stages[1] (export.onnx)",
    ]  # fmt: skip
    assert planned["chain"][1]["settings"]["rest_weight"] == 8.0


def test_a_limit_cuts_every_split_and_an_override_comes_after_it(shrink: Make, project: Make) -> None:
    def sizes(*args: str) -> dict[str, int]:
        ended = shrink("plan", project(), "--json", *args)
        assert ended.code == 0, ended.err
        return dict(json.loads(ended.out)["data"])

    assert sizes("--limit", "50") == {"train": 50, "calibration": 50, "validation": 50, "test": 50}
    assert sizes("--limit", "50", "--set", "limit=20")["train"] == 20


def test_stages_lists_every_method_with_its_settings(shrink: Make) -> None:
    listed = {entry["name"]: entry for entry in json.loads(shrink("stages", "--json").out)}
    assert {"train.supervised", "distill.logits", "export.onnx"} <= set(listed)
    settings = {setting["name"]: setting for setting in listed["distill.logits"]["settings"]}
    assert settings["rest_weight"]["default"] == 8.0
    assert all(setting["help"] for entry in listed.values() for setting in entry["settings"])
    ended = shrink("stages")
    assert ended.code == 0
    assert all(name in ended.out for name in listed)


@pytest.mark.parametrize(
    ("args", "key"), [([], "stages"), (["--record"], "schema_version"), (["--comparison"], "axes")]
)
def test_schema_prints_a_json_schema(shrink: Make, args: list[str], key: str) -> None:
    printed = json.loads(shrink("schema", *args).out)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert key in printed["properties"]


@pytest.mark.parametrize("args", [["--help"], ["run", "--help"], ["plan", "--help"]], ids=" ".join)
def test_help_is_told_on_stdout(shrink: Make, args: list[str]) -> None:
    ended = shrink(*args)
    assert (ended.code, ended.err) == (0, "")
    assert "Usage: " in ended.out  # and the name by which it was called


def test_register_and_overrides_reach_the_runner(shrink: Make, monkeypatch: Patch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}

    def run(config: Path, **rest: Any) -> Any:
        given.update(rest, config=config)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr("pipeline.build.source.load_config", lambda *_: (None, None))
    monkeypatch.setattr("pipeline.build.syntax.declared.check_declared", lambda *_: None)
    shrink("run", "a.yaml", "--set", "a=1", "--set", "b=2", "--register", "tiny", "--runs", "there")
    expected = {"config": Path("a.yaml"), "overrides": ["a=1", "b=2"], "runs": Path("there"), "register": "tiny"}
    alone = {"strategy": None, "comparison": None, "track": True, "open_tracking": None, "benchmarks": True}
    defaults = {"require_tracking": False, "lock_timeout": None, "processes": None, "allow_unsafe_load": False}
    assert given == {**expected, **alone, **defaults}
    shrink("run", "a.yaml", "--strategy", "wide", "--in-comparison", "one")
    member = {"strategy": "wide", "comparison": "one", "track": False, "benchmarks": False}
    assert {name: given[name] for name in member} == member
    shrink("run", "a.yaml", "--require-tracking", "--lock-timeout", "2.5")
    assert (given["require_tracking"], given["lock_timeout"]) == (True, 2.5)


def process(*args: Any, **rest: Any) -> "subprocess.Popen[str]":
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **rest}
    return subprocess.Popen([sys.executable, *map(str, args)], **given)


def test_help_imports_nothing_heavy() -> None:
    out, _ = process("-c", "import sys, pipeline.cli.app; print(*sys.modules)").communicate(timeout=60)
    loaded = {name.partition(".")[0] for name in out.split()}
    assert "typer" in loaded
    assert not {"torch", "numpy", "onnx", "onnxruntime", "mlflow", "pydantic", "scipy", "yaml", "accelerate"} & loaded


def test_a_real_process_prints_one_json_document_and_logs_to_stderr(chain: Make, tmp_path: Path) -> None:
    ended = forked.shrink("run", chain(budget="size: {max: 1 kB}"), "--json", cwd=tmp_path)
    out, err = ended.stdout, ended.stderr
    assert ended.returncode == 1
    assert Record.model_validate_json(out).verdict == "fail"
    assert (tmp_path / "runs" / "mlflow.db").is_file()
    assert "stages[0] (mine.py)" in err
    assert "Traceback" not in err


def test_a_second_interrupt_ends_a_process_at_once_with_130_and_a_baseline_on_disk(chain: Make, tmp_path: Path) -> None:
    path = chain("import time; (ctx.directory / 'started').touch(); time.sleep(100)")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "nonsense://"}
    command = forked.Shrink(tmp_path, "run", str(path), cwd=tmp_path, tracked=True, environment=environment)
    command.until(lambda: list(tmp_path.glob("runs/store/work/*/started")))
    folder = only_run(tmp_path / "runs")
    command.send(signal.SIGINT)
    command.until(lambda: "once more stops at once" in (folder / "run.log").read_text())
    command.send(signal.SIGINT)
    code, err, out = command.end()
    assert (code, out) == (130, "")
    assert messages(err) == ["shrink: interrupted"]
    assert "Traceback" not in err
    assert Record.load(folder).baseline is not None


@pytest.mark.parametrize("content", [None, "", "{}", "no JSON"])
def test_resume_of_a_folder_that_is_no_run_exits_2(shrink: Make, tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "folder"
    if content is not None:
        folder.mkdir()
        (folder / "record.json").write_text(content)
        (folder / "journal.jsonl").write_text(json.dumps({"event": "start", "folder": str(folder)}) + "\n")
    ended = shrink("resume", folder)
    assert ended.code == 2
    assert messages(ended.err)[0].startswith(f"shrink: {folder}")


@pytest.mark.parametrize(("budget", "code"), [("size: {max: 1 MB}", 0), ("size: {max: 1 kB}", 1)])
def test_a_resumed_finished_run_is_the_same(shrink: Make, chain: Make, tmp_path: Path, budget: str, code: int) -> None:
    before = shrink("run", chain("import time; time.sleep(0.01); return model", budget), "--json")
    again = shrink("resume", only_run(tmp_path / "runs"), "--json")
    assert (before.code, again.code) == (code, code)
    first, second = json.loads(before.out), json.loads(again.out)
    assert json.loads((only_run(tmp_path / "runs") / "record.json").read_text()) == second
    for made in (first["baseline"], *first["stages"]):
        made["cached"] = made["key"] is not None  # the one thing that differs: the stages' results were there
    assert first == second


def test_a_run_that_another_process_works_on_is_left_alone(shrink: Make, chain: Make, tmp_path: Path) -> None:
    shrink("run", chain())
    folder = only_run(tmp_path / "runs")
    before = (folder / "journal.jsonl").read_bytes()
    hold = "import fcntl; f = open('lock', 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    other = process("-c", hold, cwd=folder, stdin=subprocess.PIPE)
    other.stdout.readline()
    ended = shrink("resume", folder)
    other.communicate("\n", timeout=60)
    assert (ended.code, messages(ended.err)) == (75, [f"shrink: {folder}: another process works on this run"])
    assert (folder / "journal.jsonl").read_bytes() == before
    assert shrink("resume", folder).code == 0


def test_required_tracking_down_exits_7_at_once(shrink: Make, chain: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    from pipeline.report.mlflow.run import open_tracking

    monkeypatch.setattr(runner, "open_tracking", open_tracking)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    ended = shrink("run", chain(), "--require-tracking")
    assert ended.code == 7
    assert messages(ended.err)[0].startswith("shrink: MLflow cannot be reached")
    assert "begin" not in (only_run(tmp_path / "runs") / "journal.jsonl").read_text()
    assert not (tmp_path / "runs" / "store").exists()


@pytest.mark.parametrize("budget", ["size: {max: 1 MB}", "size: {max: 1 kB}"])
def test_a_reader_that_goes_away_changes_neither_the_exit_code_nor_the_log(
    shrink: Make, chain: Make, tmp_path: Path, budget: str
) -> None:
    code = shrink("run", chain(budget=budget)).code
    command = process("-m", "pipeline", "gate", str(only_run(tmp_path / "runs")))
    assert command.stdout
    command.stdout.close()
    assert (command.wait(60), command.stderr and command.stderr.read()) == (code, "")


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0])
def test_ctrl_c_while_it_is_imported_exits_130_in_one_line(seconds: float, tmp_path: Path) -> None:
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also where the tests run in the background
    command = process("-X", "importtime", "-m", "pipeline", "stages", preexec_fn=heeded)
    assert command.stderr
    while "pipeline.cli" not in command.stderr.readline():
        assert command.poll() is None
    time.sleep(seconds)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 130
    assert [line for line in err.splitlines() if not line.startswith("import time:")] == ["shrink: interrupted"]


def test_a_full_disk_below_what_is_printed_is_told_once() -> None:
    words = [sys.executable, "-m", "pipeline", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 4
    assert done.stderr == "shrink: disk or memory ran out: [Errno 28] No space left on device\n"
