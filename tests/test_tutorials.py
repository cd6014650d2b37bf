"""The tutorials are true: their files are written and their commands run, in order, as somebody follows them.

A block with a title is a file, which a later one of the same name replaces. Each line of a `sh` block is a command; one
that ends with another code than 0 says so: `# exit 1`. RUN is the newest run.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', flags=re.DOTALL | re.MULTILINE)
TUTORIALS = sorted(path.name for path in (ROOT / "docs").glob("*.md") if "```sh\n" in path.read_text())
REFERENCE = ["ci.md"]


def follow(tutorial: Path, folder: Path) -> int:
    """Do what a tutorial says in a folder; gives the number of commands that ran."""
    ran = 0
    for language, title, text in BLOCK.findall(tutorial.read_text()):
        if title:
            (folder / title).parent.mkdir(parents=True, exist_ok=True)
            (folder / title).write_text(text)
        elif language == "sh":
            for line in text.splitlines():
                run(line, folder)
                ran += 1
    return ran


def run(line: str, folder: Path) -> None:
    code = int(found[1]) if (found := re.search(r"# exit (\d+)$", line)) else 0
    newest = max(folder.glob("runs/*/record.json"), default=folder / "runs", key=lambda p: p.parent.name).parent
    words = shlex.split(line.replace("runs/RUN", str(newest)), comments=True)
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a newcomer works; `shrink` is this code, whatever is installed."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "shrink"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pipeline "$@"\n')
    command.chmod(0o755)
    (tmp_path / "ci.sh").symlink_to(ROOT / "docs" / "ci.sh")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TUTORIALS if name not in REFERENCE])
def test_a_tutorial_can_be_followed_to_its_end(name: str, folder: Path) -> None:
    assert follow(ROOT / "docs" / name, folder) > 2


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_files_that_a_tutorial_links_exist(name: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs" / name).read_text()) if "://" not in link]
    assert all((ROOT / "docs" / link).exists() for link in links)
