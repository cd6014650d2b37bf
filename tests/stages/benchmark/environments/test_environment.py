import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, StageError
from stages.benchmark.environments.environment import Environment

NAME = "shrink_tiny"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with one module, the only thing that pip finds."""
    path = tmp_path / "wheels" / f"{NAME}-1.5-py3-none-any.whl"
    path.parent.mkdir()
    information = f"{NAME}-1.5.dist-info"
    files = {
        f"{NAME}.py": "VALUE = 7\ndef main(): print(VALUE)\n",
        f"{information}/entry_points.txt": f"[console_scripts]\ntell = {NAME}:main\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.5\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{information}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def environment(folder: Path, digest: str, module: str = NAME) -> Environment:
    pins = folder / "pins.txt"
    pins.write_text(f"{NAME}==1.5 \\\n    --hash=sha256:{digest}\n")
    return Environment("tiny", NAME, (module,), pins=pins)


def test_it_is_made_once_and_has_what_is_pinned(wheel: Path, tmp_path: Path) -> None:
    tiny = environment(tmp_path, hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert tiny.missing() == "its environment is not made: shrink runtimes install tiny"
    left = tiny.folder.with_name(f".{tiny.folder.name}")  # by one who was killed
    left.mkdir(parents=True)
    (left / "pyvenv.cfg").write_text("torn")
    lines: list[str] = []
    assert tiny.install(lines.append) == tiny.folder
    assert any("Successfully installed" in line for line in lines)
    assert (tiny.missing(), tiny.version, left.exists()) == (None, "1.5", False)
    assert subprocess.check_output([tiny.folder / "bin" / "tell"], text=True) == "7\n"
    lines.clear()
    tiny.install(lines.append)
    assert not lines


@pytest.mark.parametrize(
    ("digest", "module", "message"),
    [("0" * 64, NAME, "DO NOT MATCH THE HASHES"), (None, "shrink_other", "No module named 'shrink_other'")],
)
def test_what_fails_leaves_nothing(wheel: Path, tmp_path: Path, digest: str | None, module: str, message: str) -> None:
    tiny = environment(tmp_path, digest or hashlib.sha256(wheel.read_bytes()).hexdigest(), module)
    with pytest.raises(StageError, match=f"the environment of tiny.*{message}"):
        tiny.install(lambda line: None)
    assert tiny.missing()
    assert [path.suffix for path in tiny.folder.parent.iterdir()] == [".lock"]


def test_one_that_is_built_for_another_torch_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old = Environment("executorch", "executorch", (), torch="1.9")
    assert str(old.missing()).startswith("executorch 1.5.1 is built for torch 1.9, and here is 2.")
    with pytest.raises(ConfigError, match=r"built for torch 1\.9"):
        old.install(lambda line: None)
    assert not list(tmp_path.iterdir())
