"""Bare names of pipeline files that come with the package; what is there in the working directory goes before."""

from pathlib import Path

import pytest

from pipeline.build.live.load import load
from pipeline.build.source import load_config
from pipeline.build.syntax.carried import CONFIGS, STRATEGIES, TASKS, carried, located
from pipeline.compare.strategies import find_strategies
from pipeline.errors import ConfigError
from tests.aliases import Patch
from tests.forked import shrink


def test_a_name_is_that_of_a_file_that_comes_with_the_package(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    digits = CONFIGS / "digits"
    assert located(Path("digits")) == digits / "compress.yaml"
    assert located(Path("digits"), STRATEGIES) == digits / "strategies.yaml"
    assert located(Path("digits/dkd")) == digits / "dkd.yaml"
    assert located(Path("digits/compress"), STRATEGIES) == located(Path("digits/compress")) == digits / "compress.yaml"
    assert {*carried().values()} == {file for task in TASKS for file in (CONFIGS / task).glob("*.yaml")}
    assert {strategy.file for strategy in find_strategies([Path("digits")])} == {digits / "strategies.yaml"}
    loaded = load("digits")
    assert loaded.config.name == "compress"
    assert loaded.config.folder == digits


@pytest.mark.parametrize("name", ["digits", "digits/dkd"])
def test_what_is_in_the_working_directory_goes_before(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    assert located(path) == path
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=f"{name}: this is a folder"):
        load(name)


def test_a_name_that_there_is_not_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no file .*digts\. Give a file, or one that comes with the package: digits, "
    ):
        load_config(tmp_path / "digts")
    for words in (("run", "digts"), ("plan", "digts"), ("compare", "digts"), ("doctor", "digts")):
        done = shrink(*words, cwd=tmp_path)
        assert (done.returncode, "digits/dkd" in done.stdout + done.stderr) == (2, True), done.stderr
    assert not list(tmp_path.iterdir())
