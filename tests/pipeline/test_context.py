"""What a stage is given has the task's names and hides its test split."""

from pathlib import Path

import pytest

from pipeline.context import Preview
from pipeline.errors import StageError
from pipeline.task import Task
from tests.contexts import bare_context


def test_it_has_the_task_s_own_names_and_cannot_peek_at_the_test_split(task: Task, tmp_path: Path) -> None:
    for seen in (bare_context(tmp_path), Preview(None, task)):  # type: ignore[arg-type]
        names = ("loss", "decode", "score", "augment", "logits", "output", "as_target", "tokenizer")
        assert [getattr(seen, name) for name in names] == [getattr(task, name) for name in names]
        assert [len(split) for split in (seen.train, seen.calibration, seen.validation)] == [256, 256, 64]
        assert len(seen.task.test) == 128
        with pytest.raises(StageError, match=r"reads the test split; expected train.*cannot peek"):
            next(iter(seen.task.test.loader(8)))
