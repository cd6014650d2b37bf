import re
import time
from pathlib import Path

import pytest

from pipeline.errors import ResourceError, StageError
from stages.benchmark.processes.module import run_module


def last(folder: Path, code: str, seconds: float | None = None) -> str:
    (folder / "told.py").write_text(f"import os, subprocess, sys, time\n{code}\n")
    return run_module("told", [folder / "x"], "the process that tells", root=folder, seconds=seconds)


def test_the_lines_of_both_streams_come_in_their_order_without_colours(tmp_path: Path) -> None:
    code = "print('one'); print('\\x1b[31mtwo\\x1b[0m', file=sys.stderr); print(' '); print(sys.argv[1:])"
    assert last(tmp_path, code) == f"one | two | {[str(tmp_path / 'x')]}"


@pytest.mark.parametrize(("code", "message"), [
    ("print('half done'); os.abort()", "was ended by SIGABRT: half done"),
    ("print('half done'); sys.exit('no layer')", "ended with 1: half done | no layer"),
    ("sys.exit(3)", "ended with 3"),
    ("time.sleep(60)", "did not end within 1 s"),
])  # fmt: skip
def test_one_that_fails_is_told_with_what_it_said(code: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=f"^{re.escape(f'the process that tells {message}')}$"):
        last(tmp_path, code, seconds=1 if "sleep" in code else None)


def test_one_that_the_system_kills_is_a_matter_of_memory(tmp_path: Path) -> None:
    message = r"was killed, as the system does when memory runs out: half done\. Lower `batch`"
    with pytest.raises(ResourceError, match=message):
        last(tmp_path, "print('half done'); os.kill(os.getpid(), 9)")


def test_what_one_that_hangs_has_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    script = f"import time\\nfor i in range(600): open({str(mark)!r}, 'w').write(str(i)); time.sleep(0.05)"
    with pytest.raises(StageError, match="did not end within 2 s"):
        last(tmp_path, f'subprocess.run([sys.executable, "-c", "{script}"])', seconds=2)
    assert mark.exists()
    before = mark.read_text()
    time.sleep(0.3)
    assert mark.read_text() == before
