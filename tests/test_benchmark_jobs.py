"""The jobs of a new user are the pages' own files and commands, and one that ends otherwise is told so."""

from pathlib import Path

import pytest

from benchmarks.jobs import FOLDERS, HERE, Command, File, did, jobs, of_folder, written

ROOT = Path(__file__).parents[1]
PAGE = """
```python title="models.py"
# the model
x = 1

y = 2
```
```sh
shrink plan my.yaml
shrink gate runs/RUN    # exit 1
```
"""


def test_the_jobs_are_those_of_the_pages_and_folders(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/vision-in-15-minutes.md", "docs/under-1-mb.md"):
        (tmp_path / page).write_text(PAGE)
    found = dict(jobs(tmp_path))
    (file, plan) = found["README"]
    assert (file.name, plan) == ("models.py", Command("shrink plan my.yaml", 0))
    assert found["vision"] == [file, plan, Command("shrink gate runs/RUN    # exit 1", 1)]
    assert written(found["vision"]) == 2
    assert {*FOLDERS} <= {*found}
    assert {*dict(jobs(ROOT))} == {*found}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_a_job_of_its_own(name: str) -> None:
    job = of_folder(HERE / "jobs" / name)
    assert "my.yaml" in [step.name for step in job if isinstance(step, File)]
    assert 20 < written(job) < 60


def test_what_ends_otherwise_is_told_with_its_last_words(tmp_path: Path) -> None:
    outcome = did([File("my.yaml", "stages: 1\n"), Command("shrink plan my.yaml", 0)], ROOT, tmp_path / "work")
    assert outcome.ended.startswith("shrink plan my.yaml: exit 2: shrink: my.yaml: the key `task` is missing")
    assert (outcome.lines, outcome.smaller, outcome.retention) == (1, None, None)
    assert did([Command("shrink plan my.yaml # exit 2", 2)], ROOT, tmp_path / "other").ended == "ok"
