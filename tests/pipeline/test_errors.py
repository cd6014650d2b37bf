"""What becomes of an error: its place, its sentence, its exit code."""

import errno
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ConfigError, ResourceError, ShrinkError, StageError, TrackingError, blame


@pytest.mark.parametrize(("given", "expected"), [
    ({}, "`epochs` is -1"),
    ({"where": "my.yaml:3"}, "my.yaml:3: `epochs` is -1"),
    ({"expected": "a number above 0"}, "`epochs` is -1; expected a number above 0"),
    ({"fix": "Raise it"}, "`epochs` is -1. Raise it."),
    ({"where": "my.yaml:3", "expected": "a number above 0", "fix": "Raise it"},
     "my.yaml:3: `epochs` is -1; expected a number above 0. Raise it."),
])  # fmt: skip
def test_a_message_says_where_found_expected_and_what_to_do(given: dict[str, str], expected: str) -> None:
    assert str(ShrinkError("`epochs` is -1", **given)) == expected


def test_each_kind_of_error_has_the_exit_code_that_the_readme_promises() -> None:
    codes = [error.exit_code for error in (ConfigError, StageError, ResourceError, TrackingError, ShrinkError)]
    assert codes == [2, 3, 4, 7, 70]


def test_blame_turns_a_foreign_error_into_ours_and_keeps_its_cause() -> None:
    sentence = r"^stages\[0\]: ValueError: bad shape. Look at it.$"
    with pytest.raises(StageError, match=sentence) as caught, blame(StageError, "stages[0]", fix="Look at it"):
        raise ValueError("bad shape.")
    assert isinstance(caught.value.__cause__, ValueError)


def test_blame_names_an_error_that_says_nothing() -> None:
    with pytest.raises(ConfigError, match=r"^data.py: ZeroDivisionError$"), blame(ConfigError, "data.py"):
        raise ZeroDivisionError


@pytest.mark.parametrize(("own", "expected"), [("", "outer"), ("inner", "outer: inner"), ("outer: x", "outer: x")])
def test_blame_puts_its_place_before_that_of_our_errors(own: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught, blame(StageError, "outer"):
        raise ConfigError("broken", where=own)
    assert caught.value.where == expected


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, GeneratorExit])
def test_blame_lets_interrupts_pass_untouched(interrupt: type[BaseException]) -> None:
    with pytest.raises(interrupt), blame(StageError, "stages[0]"):
        raise interrupt


def test_blame_does_not_let_foreign_code_end_the_process_as_if_all_were_well() -> None:
    with pytest.raises(StageError, match=r"stages\[0\]: it called sys\.exit\(0\)"), blame(StageError, "stages[0]"):
        raise SystemExit(0)


def test_blame_says_nothing_of_a_block_that_ends_well() -> None:
    with blame(StageError, "stages[0]"):
        done = True
    assert done


@pytest.mark.parametrize("raised", [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
], ids=lambda raised: f"{type(raised).__name__} {raised}")  # fmt: skip
def test_exhausted_disk_or_memory_is_a_resource_error(raised: Exception) -> None:
    sentence = r"^stages\[0\]: .*Free disk or memory"
    with pytest.raises(ResourceError, match=sentence) as caught, blame(StageError, "stages[0]"):
        raise raised
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("allocate", [lambda: torch.empty(10**14), lambda: np.empty(10**15)], ids=["torch", "numpy"])
def test_an_allocation_that_really_fails_is_a_resource_error(allocate: object) -> None:
    with pytest.raises(ResourceError), blame(StageError, "stages[0]"):
        allocate()  # type: ignore[operator]


@contextmanager
def small_files() -> Iterator[None]:
    """Files may not grow above 1000 bytes: a full disk that needs no disk. pytest's own output is such a file too."""
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_safetensors_error_for_a_full_disk_is_a_resource_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # safetensors raises its own error, which is no OSError and has no errno; the limit's number stands for ENOSPC here.
    monkeypatch.setattr(errno, "ENOSPC", errno.EFBIG)
    with pytest.raises(ResourceError, match="SafetensorError"), small_files(), blame(StageError, "stages[0]"):
        save_file({"weight": torch.zeros(10_000)}, tmp_path / "weights.safetensors")


def test_other_system_errors_are_not_called_exhaustion(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="FileNotFoundError"), blame(StageError, "stages[0]"):
        (tmp_path / "missing").read_text()
