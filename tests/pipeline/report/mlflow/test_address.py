"""What lets one into a tracking server is in no output: no stream, no file, no error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.mlflow.address import address, without_secrets
from tests.forked import shrink
from tests.users import MINE_ALONE, only_run, stage_file

PASSWORD = "open-sesame%2F@1"
SPELLINGS = [PASSWORD, "open-sesame/@1", "open-sesame%2F%401", "open-sesame"]


def secrets_in(text: str) -> list[str]:
    return [spelling for spelling in SPELLINGS if spelling in text]


@pytest.mark.parametrize("uri", [f"http://ann:{PASSWORD}@127.0.0.1:9", f"postgresql://ann:{PASSWORD}@127.0.0.1:9/m"])
def test_the_password_of_a_tracking_uri_is_in_no_output_and_no_file(
    project: Callable[..., Path], tmp_path: Path, uri: str
) -> None:
    chain = project(MINE_ALONE, **{"mine.py": stage_file()})
    how = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "TMPDIR": str(tmp_path)}
    ran = shrink("run", chain, cwd=tmp_path, **how)
    assert (ran.returncode, "MLflow tracking stopped" in ran.stderr) == (0, True)
    folder = only_run(tmp_path / "runs")
    failed = [
        shrink("run", chain, "--require-tracking", "--debug", "--json", cwd=tmp_path, **how),
        shrink("sync", folder, "--debug", cwd=tmp_path, **how),
    ]
    assert [ended.returncode for ended in failed] == [7, 7]
    outputs = [
        ran,
        *failed,
        shrink("doctor", chain, cwd=tmp_path, **how),
        shrink("report", folder, cwd=tmp_path, **how),
    ]
    assert not [secrets_in(ended.stdout + ended.stderr) for ended in outputs if secrets_in(ended.stdout + ended.stderr)]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"run.log", "record.json", "journal.jsonl", "report.html", "tracking.json"} <= {path.name for path in files}
    assert not [path for path in files if secrets_in(path.read_bytes().decode(errors="replace"))]


@pytest.mark.parametrize(
    ("uri", "secret", "text", "shown"),
    [
        ("http://ann:s3cret@h", "", "at http://ann:s3cret@h/api: s3cret", "at http://***@h/api: ***"),
        ("http://t0ken@h", "", "no t0ken", "no ***"),
        ("http://ann:p%40ss@h", "", "p@ss p%40ss", "*** ***"),
        ("http://ann:p@ss/w@h", "", "http://ann:p@ss/w@h", "http://***@h"),
        ("http://ann:x@h", "", "http://ann:x@h/x", "http://***@h/x"),
        ("mysql://h/m?password=s3cret&ssl=true", "", "s3cret true", "*** true"),
        ("http://h:5000", "", "http://h:5000/api", "http://h:5000/api"),
        ("http://h", "from-a-variable", "Bearer from-a-variable", "Bearer ***"),
    ],
)
def test_secrets_are_hidden_in_any_text(
    monkeypatch: pytest.MonkeyPatch, uri: str, secret: str, text: str, shown: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", secret)
    assert without_secrets(text) == shown


def test_the_address_by_default_is_one_that_reaches_the_database(tmp_path: Path) -> None:
    from sqlalchemy import make_url

    assert address(tmp_path / "a%3F?b").endswith("/a%253F%3Fb/mlflow.db")
    url: Any = make_url(address(tmp_path / "a%3F?b"))
    assert url.database == str(tmp_path / "a%3F?b" / "mlflow.db")
