"""A folder of a run is read by one loader: what is damaged, unreadable or leads out of it is one clear error."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.records.comparison import ComparisonRecord, StrategyRecord
from pipeline.records.folder import load_comparison, load_events, load_run
from tests.records import record, stage

EVENTS: list[dict[str, Any]] = [
    {"time": "2026-01-01T00:00:00.000+00:00", "event": "start", "folder": "/code", "processes": 1},
    {"time": "2026-01-01T00:00:01.000+00:00", "event": "begin", "place": "stages[0]", "key": "k"},
    {"time": "2026-01-01T00:00:02.000+00:00", "event": "end", "verdict": "pass"},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    record(stage(), run="r", folder=str(folder)).save()
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    return folder


def changed(run: Path, change: Callable[[Any], Any]) -> Path:
    content = json.loads((run / "record.json").read_text())
    change(content)
    (run / "record.json").write_text(json.dumps(content))
    return run


def test_a_whole_folder_is_read(run: Path) -> None:
    assert load_run(run).stages[0].file == "model.onnx"
    assert load_events(run) == EVENTS


@pytest.mark.parametrize("key", ["folder", "file", "predictions"])
@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", "a\0b"])
def test_a_path_that_leads_out_of_the_folder_is_refused(run: Path, key: str, path: str) -> None:
    changed(run, lambda content: content["stages"][0].update({key: path}))
    with pytest.raises(ConfigError, match=rf"record\.json: it is damaged: stages\.0\.{key} a relative path without"):
        load_run(run)


@pytest.mark.parametrize("key", ["run", "comparison"])
@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "a\0b"])
def test_a_name_that_is_a_path_is_refused(run: Path, key: str, name: str) -> None:
    changed(run, lambda content: content.update({key: name}))
    with pytest.raises(ConfigError, match=f"it is damaged: {key} the name of a folder is expected"):
        load_run(run)


@pytest.mark.parametrize("place", ["model.onnx", "journal.jsonl", "lock", "stages/model"])
def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(run: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "outside").mkdir()
    (run / place).parent.mkdir(exist_ok=True)
    (run / place).unlink(missing_ok=True)
    (run / place).symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="this is a link out of the run folder"):
        load_run(run)
    (run / place).unlink()
    (run / "linked").symlink_to("record.json")
    assert load_run(run, ended=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is damaged: EOF"),
        ("[1]", "it is damaged"),
        ("{}", "it is damaged: run Field required"),
        ("[" * 10_000, "it is damaged: recursion limit"),
        ('{"seed": NaN}', "it is damaged: expected value"),
        ('{"seed": 1' + "0" * 400 + "}", "it is damaged: it holds a number that is too large"),
        ('{"seed": 1e999}', "it is damaged: it holds a number that is too large"),
        ('{"run": "\\ud800"}', "it is damaged"),
    ],
    ids=lambda text: text[:20],
)
def test_a_record_that_is_damaged_is_one_error(run: Path, text: str, message: str) -> None:
    (run / "record.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"/r/record\.json: {message}"):
        load_run(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [("started", "soon"), ("started", "2026-01-01T00:00:00"), ("started", "0001-01-01T00:00:00+00:00"),
     ("data", {"test": 3}), ("environment", {"versions": 3}), ("config", {"compare": 3})],
)  # fmt: skip
def test_what_others_read_of_a_record_fits(run: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"it is damaged: {key} "):
        load_run(changed(run, lambda content: content.update({key: value})))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3", "line 4 is no mapping"),
        ("{", "line 4 is no JSON"),
        ("{}", "line 4 has no `event` that fits"),
        ('{"event": "begin"}', "line 4 has no `place` that fits"),
        ('{"event": "measured", "place": "x", "key": "k"}', "line 4 has no `finished` that fits"),
        ('{"event": "x", "time": 3}', "line 4 has no `time` that fits"),
        ('{"event": "start", "processes": -1}', "line 4 has no `processes` that fits"),
    ],
)
def test_a_line_of_the_journal_that_is_damaged_is_named(run: Path, line: str, message: str) -> None:
    with (run / "journal.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigError, match=rf"journal\.jsonl: it is damaged: {message}"):
        load_run(run)
    assert load_run(run, ended=False)


def test_what_may_not_be_read_is_not_called_damaged(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=r"it cannot be read: Permission denied\. Let this user read it"):
        load_run(run)


@pytest.mark.parametrize(("of_runs", "names"), [(False, ["../x"]), (False, ["/etc"]), (True, ["../x"]), (False, ["x"])])
def test_the_runs_of_a_comparison_lie_beside_it(tmp_path: Path, of_runs: bool, names: list[str]) -> None:
    strategy = StrategyRecord.model_construct(name="one", runs=names)
    when, folder = "2026-01-01T00:00:00+00:00", tmp_path / "c"
    folder.mkdir()
    made = ComparisonRecord(comparison="c", folder=str(folder), started=when, origins=[], of_runs=of_runs)
    made.model_copy(update={"strategies": [strategy]}).save()
    if of_runs or names == ["x"]:
        assert load_comparison(folder).strategies[0].runs == names
    else:
        with pytest.raises(ConfigError, match=r"comparison\.json: it is damaged"):
            load_comparison(folder)
