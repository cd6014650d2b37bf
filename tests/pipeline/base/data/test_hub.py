"""A name that only a hub out of reach could have is told in seconds; what is here or in the cache is not asked for."""

from pathlib import Path

import pytest

from pipeline.base.data.hub import OFFLINE, check_reachable
from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.pretrained import _config
from pipeline.tasks.huggingface.settings import Settings
from pipeline.tasks.huggingface.source import read
from pipeline.tasks.huggingface.text.tokens import opened


@pytest.fixture(autouse=True)
def out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OFFLINE, "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def test_what_is_here_or_in_the_cache_or_switched_off_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_reachable(str(tmp_path), "datasets", "data")
    (tmp_path / "hf" / "hub" / "models--owner--net" / "snapshots" / "1").mkdir(parents=True)
    check_reachable("owner/net", "models", "name")
    with pytest.raises(ConfigError, match=r"name: `owner/other` is no folder here, is not in the cache, and http"):
        check_reachable("owner/other", "models", "name")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check_reachable("owner/other", "models", "name")


@pytest.mark.parametrize("ask", [
    lambda: read(Settings(kind="text_classification", data="owner/rows")),
    lambda: _config("owner/net", None),
    lambda: opened("owner/net"),
], ids=["data", "model", "tokenizer"])  # fmt: skip
def test_an_unknown_name_is_refused_before_a_library_retries(ask: object) -> None:
    with pytest.raises(ConfigError, match=r"cannot be reached: .*refused\. Give a folder, or fetch it where"):
        ask()  # type: ignore[operator]
