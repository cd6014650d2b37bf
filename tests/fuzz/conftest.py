"""What is damaged: a folder with two runs, a comparison of them and a store, beside the code that made them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.compare.compare import compare_runs
from pipeline.runner import run
from tests.pipeline.conftest import CHAIN, quick  # noqa: F401


@pytest.fixture
def sample(quick: Callable[..., Path], tmp_path: Path) -> Path:  # noqa: F811
    """A folder with `runs/one`, `runs/two` and `runs/both`."""
    runs = tmp_path / "sample" / "runs"
    for name, overrides in (("one", []), ("two", ["stages.0.strength=0.1"])):
        made = Path(run(quick(CHAIN), overrides=overrides, runs=runs, track=False).folder)
        _renamed(made, name)
    made = Path(compare_runs([runs / "one", runs / "two"], runs=runs, track=False).folder)
    _renamed(made, "both")
    return runs.parent


def _renamed(folder: Path, name: str) -> None:
    """Have a folder, and the records that tell of it, called otherwise."""
    before = folder.name
    folder.rename(folder.with_name(name))
    for file in folder.parent.glob("*/*.json"):
        file.write_text(file.read_text().replace(before, name))
