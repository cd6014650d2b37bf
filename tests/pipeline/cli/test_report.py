from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.report import package, report
from pipeline.errors import ConfigError
from pipeline.records.comparison import FILE
from pipeline.report.files import STEP_SUMMARY
from tests.aliases import Make, Patch


def test_it_builds_the_files_of_runs_and_comparisons_again_and_prints_where(
    record: Make, comparison: Make, capsys: pytest.CaptureFixture[str], monkeypatch: Patch
) -> None:
    monkeypatch.setenv(STEP_SUMMARY, "step.md")
    one, all_ = record(), comparison()
    one.save()
    all_.save()
    folders = [Path(one.folder), Path(all_.folder)]
    assert report(folders) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in printed] == ["summary.md", "junit.xml", "report.html", "summary.md", "report.html"]
    assert {path.parent for path in printed} == set(folders)
    assert all(path.stat().st_size for path in printed)
    assert not Path("step.md").exists()  # the run told it already


def test_a_moved_run_folder_is_told_where_it_is(record: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    made = record()
    made.save()
    moved = Path(made.folder).rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    report([Path("moved")])
    assert "shrink resume moved" in (moved / "summary.md").read_text()


@pytest.mark.parametrize("name", ["record.json", FILE])
def test_a_damaged_record_is_one_message(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"run": ')
    with pytest.raises(ConfigError, match=f"{name}: it is damaged: EOF while parsing"):
        report([tmp_path])


def test_a_folder_without_a_record_is_refused_before_anything_is_written(record: Make, tmp_path: Path) -> None:
    made = record()
    made.save()
    with pytest.raises(ConfigError, match="no run folder"):
        report([Path(made.folder), tmp_path / "nothing"])
    assert not (Path(made.folder) / "summary.md").exists()


@pytest.mark.parametrize(("given", "message"), [
    ({"runtime": "openvini"}, "there is no module `stages.benchmark.runtimes.openvini`; did you mean `openvino`"),
    ({"runtime": "ort", "unpacked": True}, "--unpacked is of the ONNX file. Leave it or --runtime ort out"),
])  # fmt: skip
def test_a_package_that_cannot_be_made_is_one_message(record: Make, given: dict[str, Any], message: str) -> None:
    made = record()
    made.save()
    with pytest.raises(ConfigError, match=message):
        package(Path(made.folder), **given)
