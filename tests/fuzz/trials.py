"""Commands on damaged files, many in one warm process: each ends with a code of its own and writes nowhere else."""

import io
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.forked import start

SECRET = "what lies outside of all folders that a command is given"
CODES = {0, 1, 2, 3, 4, 5, 6, 7}
PATIENCE = 600 if os.environ.get("FUZZ") != "all" else 3600
SHARE = 1.0 if os.environ.get("FUZZ") == "all" else 0.1
"""Of the trials; all of them, some 3,000, take a quarter of an hour or more."""


class Trial(NamedTuple):
    """A command, and what is done to the folder that it works in before."""

    words: tuple[str, ...]
    prepare: Callable[[Path], object]


def problems(place: Path, sample: Path, make: Callable[[Path, Random], Trial], count: int, user: int = 0) -> list[str]:
    """What is wrong with how so many commands ended, on copies of a sample folder; of a child that does all of them.

    Args:
        place: a folder for the copies and what lies outside of them; it is made.
        sample: the folder to copy, which hard links are taken of.
        make: the trial of a seed; a function that can be imported.
        count: of trials, where FUZZ=all is in the environment; a tenth otherwise.
        user: whose rights the child has, where it may change them.
    """
    count = round(SHARE * count)
    (place / "outside").mkdir(parents=True)
    (place / "outside" / "secret").write_text(SECRET)
    (place / "temporary").mkdir()
    child = start(_try_all, place, sample, make, count, user)
    child.join(PATIENCE)
    assert child.exitcode == 0, child.exitcode
    outcome = json.loads((place / "outcome.json").read_text())
    assert sum(outcome["codes"].values()) == count
    print(f"{count} inputs, by exit code {outcome['codes']}; wrong: {len(outcome['problems'])}")  # noqa: T201
    return [*outcome["problems"]]


def _try_all(place: Path, sample: Path, make: Callable[[Path, Random], Trial], count: int, user: int) -> None:
    """Do all trials in this process, and write what was wrong."""
    from pipeline.report.mlflow import following

    following.following = lambda *_: nullcontext()  # type: ignore[assignment]
    tempfile.tempdir = str(place / "temporary")
    os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", COLUMNS="200")
    outside, report = _state(place / "outside"), (place / "outcome.json").open("w")
    if user and os.geteuid() == 0:
        for folder in (place, place / "temporary"):
            os.chown(folder, user, user)
        os.seteuid(user)
    codes, found = Counter[str](), list[str]()
    for seed in range(count):
        work = place / f"work-{seed}"
        _copy(sample, work)
        trial = make(work, Random(seed))
        trial.prepare(work)
        os.chdir(work)
        code, error = _command(trial.words)
        codes[str(code)] += 1
        found += [f"seed {seed}, {' '.join(trial.words)}: {problem}" for problem in _wrong(code, error, work)]
        if _state(place / "outside") != outside:
            found.append(f"seed {seed}, {' '.join(trial.words)}: it wrote outside")
            break
        os.chdir(place)
        _remove(work)
    json.dump({"codes": codes, "problems": found}, report)
    report.close()


def _command(words: tuple[str, ...]) -> tuple[object, str]:
    """The exit code and what went to standard error."""
    from pipeline.cli import app

    error, code = io.StringIO(), None
    sys.argv = ["shrink", *words]
    with redirect_stdout(io.StringIO()), redirect_stderr(error):
        try:
            app.main()
        except SystemExit as ended:
            code = ended.code
        except BaseException:  # noqa: BLE001  # what escapes is what is looked for
            traceback.print_exc(file=error)
    return code, error.getvalue()


def _wrong(code: object, error: str, work: Path) -> Iterator[str]:
    if code not in CODES or "Traceback" in error:
        logs = sorted(Path(tempfile.gettempdir()).glob("shrink-bug-*"))
        yield f"exit code {code}: {(logs[-1].read_text() if logs else error)[-1500:]}"
    if any(SECRET in file.read_text(errors="replace") for file in work.glob("out/**/*") if file.is_file()):
        yield "it took a file from outside along"


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of all that lies in a folder."""
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in (folder, *folder.rglob("*")))


def _copy(sample: Path, work: Path) -> None:
    """A copy of which no change reaches the sample: files that commands may write to are its own."""

    def copy(source: str, target: str) -> None:
        (os.link if source.endswith((".onnx", ".safetensors", ".html")) else shutil.copyfile)(source, target)

    shutil.copytree(sample, work, copy_function=copy)


def _remove(work: Path) -> None:
    for folder, _, _ in os.walk(work):  # from above, so that each can be listed
        os.chmod(folder, 0o700)
        for inner in Path(folder).iterdir():
            if inner.is_dir() and not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(work)
