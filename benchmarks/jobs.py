"""The jobs of a new user: each in an empty folder, at the first try, in one or several checkouts in turns.

    python benchmarks/jobs.py .                      of this checkout
    python benchmarks/jobs.py EARLIER . --json jobs.json

Jobs: the README's example and the tutorials that need no network, with the files and commands as they stand there in
each checkout; and the folders of benchmarks/jobs/, `shrink plan` and `shrink run` of their my.yaml.

Printed for each job and checkout: what the first command that did not end as it should ended with, or `ok`; seconds of
all commands; lines that the user writes, without empty ones and comments; and, of the last run, how many times smaller
the file is and the retention.
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from os import environ
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', flags=re.DOTALL | re.MULTILINE)
PAGES = {"README": "README.md", "vision": "docs/vision-in-15-minutes.md", "under 1 MB": "docs/under-1-mb.md"}
ON_FILES = ("shrink plan my.yaml", "shrink run my.yaml")
FOLDERS = ("sensor", "table", "vit", "bert")


class File(NamedTuple):
    """A file that is written, in place of one of that name."""

    name: str
    text: str


class Command(NamedTuple):
    """A command, and the exit code that it should have."""

    line: str
    code: int


Job = list[File | Command]
"""What a user does, in order."""


class Outcome(NamedTuple):
    """How a job went: `ok` or what went wrong, seconds, lines written, and the last run's figures."""

    ended: str
    seconds: float
    lines: int
    smaller: float | None
    retention: float | None


def of_page(page: Path, *, is_readme: bool) -> Job:
    """The job that a page tells: its titled blocks are files; of the README, its two commands on them."""
    job = Job()
    for language, title, text in BLOCK.findall(page.read_text()):
        if title:
            job.append(File(title, text))
        elif language == "sh":
            lines = [line for line in text.splitlines() if not is_readme or line in ON_FILES]
            job += [Command(line, _expected(line)) for line in lines]
    return job


def of_folder(folder: Path) -> Job:
    """A job of benchmarks/jobs/."""
    files = [File(path.name, path.read_text()) for path in sorted(folder.iterdir()) if path.is_file()]
    return [*files, *(Command(line, 0) for line in ON_FILES)]


def jobs(checkout: Path) -> Iterator[tuple[str, Job]]:
    """All of a checkout, by name; the folders are those beside this file."""
    for name, page in PAGES.items():
        yield name, of_page(checkout / page, is_readme=name == "README")
    for name in FOLDERS:
        yield name, of_folder(HERE / "jobs" / name)


def did(job: Job, checkout: Path, work: Path) -> Outcome:
    """What comes of a job in an empty folder."""
    (work / "bin").mkdir(parents=True)
    shrink = work / "bin" / "shrink"
    shrink.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pipeline "$@"\n')
    shrink.chmod(0o755)
    shutil.copy(checkout / "docs" / "ci.sh", work)
    started, ended = time.perf_counter(), "ok"
    for step in job:
        if isinstance(step, File):
            (work / step.name).parent.mkdir(parents=True, exist_ok=True)
            (work / step.name).write_text(step.text)
            continue
        code, error = _run(step.line, checkout, work)
        if code != step.code:
            ended = f"{step.line}: exit {code}: {error}"
            break
    return Outcome(ended, time.perf_counter() - started, written(job), *_figures(work))


def written(job: Job) -> int:
    """Lines of its files that are neither empty nor comments."""
    lines = [line.strip() for step in job if isinstance(step, File) for line in step.text.splitlines()]
    return len([line for line in lines if line and not line.startswith("#")])


def _expected(command: str) -> int:
    told = re.search(r"# exit (\d+)$", command)
    return int(told[1]) if told else 0


def _run(command: str, checkout: Path, work: Path) -> tuple[int, str]:
    """The exit code of a command, and the last line that it said."""
    words = shlex.split(command.replace("runs/RUN", str(_newest(work))), comments=True)
    path = f"{work / 'bin'}:{Path(sys.executable).parent}:{environ['PATH']}"
    variables = {**environ, "PYTHONPATH": str(checkout), "PATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=work, env=variables, capture_output=True, text=True, check=False)
    return done.returncode, " ".join(done.stderr.strip().splitlines()[-3:])[-200:]


def _newest(work: Path) -> Path:
    return max(work.glob("runs/*/record.json"), default=work / "runs" / "record.json").parent


def _figures(work: Path) -> tuple[float | None, float | None]:
    """How many times smaller the last run's file is than the baseline's, and the retention."""
    file = _newest(work) / "record.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    models = record.get("stages") or [{}]
    return models[-1].get("compression_ratio"), (models[-1].get("retention") or {}).get("value")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, do each job in each checkout, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    checkouts = [checkout.resolve() for checkout in options.checkouts]
    table = list[dict[str, Any]]()
    for pairs in zip(*(jobs(checkout) for checkout in checkouts), strict=True):
        for checkout, (name, job) in zip(checkouts, pairs, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                outcome = did(job, checkout, Path(folder) / "work")
            table.append({"job": name, "checkout": checkout.name, **outcome._asdict()})
            smaller = f"{outcome.smaller:.1f} times smaller" if outcome.smaller else "no file"
            kept = "" if outcome.retention is None else f", retention {outcome.retention:.3f}"
            print(
                f"{name:11} {checkout.name:10} {outcome.seconds:6.1f} s, {outcome.lines} lines, {smaller}{kept}: "
                f"{outcome.ended}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
