"""Caches of a test's own, no bars, and no network."""

from pathlib import Path

import datasets
import pytest


@pytest.fixture(autouse=True, scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `datasets` and we keep what is made of sets."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        datasets.disable_progress_bars()
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder  # type: ignore[misc]
