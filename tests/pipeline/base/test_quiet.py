"""What is quiet for a while is not afterwards."""

import gc

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
