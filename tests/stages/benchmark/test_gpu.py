from pathlib import Path

import pytest

from stages.benchmark.gpu import no_gpu
from tests.aliases import Patch
from tests.gpus import LISTED, driver


@pytest.mark.parametrize(("script", "message"), [
    (None, "nvidia-smi is not found"),
    ("echo 'No devices were found'", "No devices were found"),
    ("echo 'NVIDIA-SMI has failed'; exit 9", "NVIDIA-SMI has failed"),
    ("exit 6", "it lists none"),
])  # fmt: skip
def test_why_there_is_none(script: str | None, message: str, tmp_path: Path, monkeypatch: Patch) -> None:
    driver(tmp_path, monkeypatch, script)
    assert message in str(no_gpu())


def test_one_that_is_listed_is_there(tmp_path: Path, monkeypatch: Patch) -> None:
    driver(tmp_path, monkeypatch, LISTED)
    assert no_gpu() is None
