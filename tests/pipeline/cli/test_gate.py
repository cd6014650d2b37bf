"""`shrink gate` and `shrink expect`: exit codes, what goes where, and that the user's code is not needed."""

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.gate import expect, gate, judge_run, lines, load_budget
from pipeline.errors import ConfigError, StageError
from pipeline.gate.expected import load
from pipeline.records.record import Record
from pipeline.runner import run
from tests.aliases import Make
from tests.forked import shrink
from tests.records import bench
from tests.users import only_run, stage_file

ROOT = Path(__file__).parents[3]

LIMITS = "size: {max: 1 MB}, params: {max: 1000}"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty folder."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


@pytest.fixture
def made(quick: Make, tmp_path: Path) -> Make:
    """made(limits): a run with this budget that was moved away from the user's code, which is gone."""

    def make(limits: str = LIMITS) -> Path:
        path: Path = quick()
        record = run(path, overrides=[f"budget={{{limits}}}"], runs=tmp_path / "runs", track=False)
        folder = shutil.move(record.folder, tmp_path / "moved")
        shutil.rmtree(path.parent)
        shutil.rmtree(tmp_path / "runs")
        return Path(folder)

    return make


def test_a_run_is_judged_without_the_code_that_made_it(elsewhere: Path, made: Make) -> None:
    ended = shrink("gate", made(), cwd=elsewhere)
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.splitlines()
    assert [line.partition(":")[0] for line in said] == ["pass", "pass", "verdict"]
    assert said[-1] == "verdict: pass"
    assert "params is 260, the limit 1,000" in said[1]


def differing(folder: Path, difference: float) -> None:
    """Let the record say so of the exported file: on some machines it gives what torch gives, to the bit."""
    path = folder / "record.json"
    record = json.loads(path.read_text())
    (parity,) = [stage["reports"]["parity"] for stage in record["stages"] if "parity" in stage["reports"]]
    parity["largest_difference"] = difference
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(("limits", "code", "verdict"), [
    ("{size: {max: 1 B}}", 1, "fail"),
    ("{retention: {min: 0.999}}", 5, "inconclusive"),
    ("{retention: {min: 0.999}, on_inconclusive: warn}", 0, "pass"),
    ("{parity: {max: 1.0e-9}, on_skipped: fail}", 1, "fail"),
])  # fmt: skip
def test_another_budget_is_judged_and_kept_in_the_record(
    made: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], limits: str, code: int, verdict: str
) -> None:
    folder, file = made(), tmp_path / "limits.yaml"
    file.write_text(limits)
    differing(folder, 1e-6)
    before = Record.load(folder)
    capsys.readouterr()
    assert gate(folder, budget=file, as_json=True) == code
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "record.json").read_text())
    record = Record.load(folder)
    assert (record.verdict, len(record.gates)) == (verdict, 1)
    assert record.gates[0].fix
    assert record.folder == str(folder)
    changed = {"gates", "verdict", "warnings", "folder", "judged_by"}
    assert record.model_dump(exclude=changed) == before.model_dump(exclude=changed)
    assert record.judged_by
    assert set(record.judged_by) & {"size", "retention", "parity"} == {limits.strip("{").partition(":")[0]}
    assert any("budget:" in text for text in record.warnings) == ("warn" in limits)
    assert (folder / "summary.md").is_file()
    assert (folder / "junit.xml").is_file()


def test_a_runtime_is_chosen_anew_under_another_budget(made: Make, tmp_path: Path) -> None:
    folder, file = made(), tmp_path / "limits.yaml"
    path = folder / "record.json"
    record = json.loads(path.read_text())
    kept = {"value": 0.9, "verdict": "same decisions", "validation_retention": {"value": 1.0, "low": 1.0, "high": 1.0}}
    record["stages"][-1]["latency"] = [bench("ncnn", score=kept, memory={"peak_bytes": 40_000_000})]
    record["config"]["choose"] = {}
    record["chosen"] = {"by": "latency", "retention": 0.95, "unit": "ms", "reason": "there was none"}
    path.write_text(json.dumps(record))
    for limit, runtime in (("50 MB", "ncnn"), ("30 MB", None)):
        file.write_text(f"{{memory: {{max: {limit}}}}}")
        chosen = judge_run(folder, file).chosen
        assert chosen == Record.load(folder).chosen
        assert chosen
        assert (chosen.pair and chosen.pair.runtime) == runtime


def test_expect_writes_what_later_models_are_held_to(elsewhere: Path, made: Make, tmp_path: Path) -> None:
    folder, file, path = made(), tmp_path / "limits.yaml", tmp_path / "expected.json"
    ended = shrink("expect", folder, "--output", path, cwd=elsewhere)
    assert (ended.returncode, ended.stdout) == (0, f"{path}\n"), ended.stderr
    first = path.read_bytes()
    assert expect(folder, output=path) == 0
    assert path.read_bytes() == first
    assert load(path).params == 260
    file.write_text("{retention: {min: 0.5, of: expected}, size: {max: 1, of: expected}}")  # the file lies beside it
    assert [found.verdict for found in judge_run(folder, file).gates] == ["pass", "pass"]
    path.unlink()
    gone = shrink("gate", folder, "--budget", file, cwd=elsewhere)
    assert (gone.returncode, gone.stdout) == (2, "")
    assert "expected.json: there is no such file" in gone.stderr
    assert f"shrink expect {folder} --output {path}" in gone.stderr


def test_expect_prints_what_it_wrote_as_json(made: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made()
    capsys.readouterr()
    expect(folder, output=tmp_path / "expected.json", as_json=True)
    assert capsys.readouterr().out == (tmp_path / "expected.json").read_text()


def test_expect_writes_beside_the_pipeline_file(quick: Make, tmp_path: Path) -> None:
    path = quick()
    record = run(path, overrides=["budget.expected=kept.json"], runs=tmp_path / "runs", track=False)
    expect(Path(record.folder))
    assert load(path.parent / "kept.json").config == record.config["name"]


def test_a_pipeline_file_is_run_and_judged_by_the_given_budget(quick: Make, tmp_path: Path, elsewhere: Path) -> None:
    path, file = quick(), tmp_path / "limits.yaml"
    file.write_text("params: {max: 10}\n")
    text = path.read_text().replace("  - {use: export.onnx}\n", "")  # torch's exporter takes its time
    path.write_text(text)
    arguments = ("gate", path, "--budget", file, "--runs", tmp_path / "runs", "--set", "seed=4")
    ended = shrink(*arguments, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / 'm.db'}", cwd=elsewhere)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.splitlines()[-1] == "verdict: fail"
    assert "fail: params is 260, the limit 10" in ended.stdout
    (found,) = (tmp_path / "runs").glob("*/record.json")
    record = Record.load(found.parent)
    assert (record.seed, record.verdict, [gate.name for gate in record.gates]) == (4, "fail", ["params"])


@pytest.mark.parametrize(("target", "message"), [
    ("nothing", "there is no file"), (".", r"this is no run folder; expected a run folder with a record\.json"),
])  # fmt: skip
def test_what_is_neither_a_run_nor_a_file_is_refused(elsewhere: Path, target: str, message: str) -> None:
    ended = shrink("gate", target, cwd=elsewhere)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message.replace("\\", "") in ended.stderr


def test_a_budget_without_limits_is_no_pass(made: Make, tmp_path: Path) -> None:
    folder = made("on_skipped: pass")
    with pytest.raises(ConfigError, match="there is no limit to judge by"):
        judge_run(folder)
    (tmp_path / "limits.yaml").write_text("on_skipped: pass")
    with pytest.raises(ConfigError, match=r"limits\.yaml: there is no limit to judge by"):
        judge_run(folder, tmp_path / "limits.yaml")


def test_a_wrong_budget_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    for text, message in (
        ("size: {max: 1 MB}\nretention: {mni: 0.9}\n", r"limits\.yaml:2: there is no key `mni`; did you mean `min`\?"),
        ("retentoin: {min: 0.9}\n", r"limits\.yaml:1: there is no key `retentoin`; did you mean `retention`\?"),
        ("size: {max: 40 kilos}\n", r"expected a size, such as 40 kB or 1 MiB"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_budget(file)


def test_a_run_that_failed_is_told_as_failed(quick: Make, tmp_path: Path, elsewhere: Path) -> None:
    with pytest.raises(StageError):
        run(quick(**{"look.py": stage_file("raise ValueError('no')")}), runs=tmp_path / "runs", track=False)
    ended = shrink("gate", only_run(tmp_path), cwd=elsewhere)
    assert ended.returncode == 3, ended.stderr
    assert ended.stdout.startswith("failed: ")
    assert (
        "skipped, counts as inconclusive: size_bytes is not judged: the run ended in stages[1] (look.py)"
        in ended.stdout
    )


def test_a_run_that_goes_on_is_not_judged(made: Make) -> None:
    folder = made()
    journal = folder / "journal.jsonl"
    journal.write_text("".join(line for line in journal.read_text().splitlines(True) if '"event": "end"' not in line))
    with pytest.raises(ConfigError, match="has not come to its end"):
        judge_run(folder)


def test_a_damaged_record_is_refused(made: Make) -> None:
    folder = made()
    (folder / "record.json").write_text("{}")
    with pytest.raises(ConfigError, match="Run it again"):
        judge_run(folder)


def test_each_gate_is_one_line(made: Make, tmp_path: Path) -> None:
    folder, file = made(), tmp_path / "limits.yaml"
    limits = {"retention": {"min": 0.999}, "flips": {"max": 0.001}, "worst_class": {"min": 0.99}, "size": {"max": 10}}
    file.write_text(yaml.safe_dump(limits))
    said = lines(judge_run(folder, file))
    assert len(said) == 5
    assert not any("\n" in line for line in said)
    assert all(line.endswith(".") for line in said[:-1])


def test_a_run_folder_that_may_only_be_read_is_judged_all_the_same(
    quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shrink: Make
) -> None:
    folder = Path(run(quick(), runs=tmp_path / "runs", track=False).folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(folder))

    monkeypatch.setattr("pipeline.records.record.write_whole", refuse)
    ended = shrink("gate", folder)
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "verdict: pass")
    assert "the verdict is not kept" in ended.err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("origin", "expected", "message"),
    [
        ("/none", "expected.json", "its pipeline file is not in /none"),
        ("", "../expected.json", "`expected` is .*; expected a .json below the folder of the pipeline file"),
        ("", "authorized_keys", "`expected` is .*; expected a .json below the folder of the pipeline file"),
        ("", "a\\0.json", "embedded null"),
    ],
)
def test_a_record_does_not_choose_what_expect_writes_on_this_machine(
    quick: Make, tmp_path: Path, shrink: Make, origin: str, expected: str, message: str
) -> None:
    path = quick()
    record = run(path, runs=tmp_path / "runs", track=False)
    record.origin.folder = origin or str(path.parent)
    record.config["budget"]["expected"] = expected.replace("\\0", "\0")
    record.save()
    before = sorted(tmp_path.rglob("*"))
    ended = shrink("expect", record.folder)
    assert ended.code == 2
    assert re.search(message, ended.err.replace("\n", " "))
    assert "--output" in ended.err
    assert sorted(tmp_path.rglob("*")) == before
