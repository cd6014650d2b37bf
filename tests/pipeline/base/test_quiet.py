"""What is quiet for a while is not afterwards."""

import gc
import subprocess
import sys

import pytest

from pipeline.base.quiet import uncollected


def test_garbage_is_collected_again_where_it_was() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collection_that_the_user_turned_off_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "isenabled", lambda: False)
    monkeypatch.setattr(gc, "enable", lambda: pytest.fail("it was turned on"))
    monkeypatch.setattr(gc, "disable", lambda: None)
    with uncollected():
        pass


def test_a_process_that_leaves_its_garbage_has_nothing_to_search_when_it_ends() -> None:
    code = (
        "import atexit, gc; atexit.register(lambda: print(len(gc.get_objects())));"
        "from pipeline.base.quiet import leave_garbage; leave_garbage()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # of the thousands that there are
