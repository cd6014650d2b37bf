"""The wheel: what it carries, and a run of it in an empty folder, in an environment without the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
QUICK = (
    "baseline.0.epochs=2", "stages.0.epochs=2", "stages.1.recovery.epochs=1", "stages.2.epochs=1",
    "stages.5.effort=quick", "budget={size: {max: 4 kB}}",
)  # fmt: skip


def call(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A program of its own, which is not told where the repository is."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built through the source distribution, as a release is."""
    folder = tmp_path_factory.mktemp("dist")
    done = call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and this one's libraries behind it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    (done := call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)).check_returncode()
    python = folder / "bin" / "python"
    done = call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    (packages,) = folder.glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "libraries.pth").write_text("\n".join(libraries) + "\n")
    return folder


def test_it_carries_all_files_of_the_packages_and_the_digits(wheel: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    wanted = {name for name in tracked if name.startswith(("pipeline/", "stages/", "configs/digits/"))}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == wanted | {"shrinkline.py"}


def test_digits_run_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    code = "import pipeline, stages, shrinkline; print(pipeline.__file__, stages.__file__, shrinkline.__file__)"
    files = call(environment / "bin" / "python", "-c", code, cwd=tmp_path).stdout.split()
    assert len(files) == 3
    assert all(file.startswith(str(environment)) for file in files)
    before = files_of(environment)
    words = [word for setting in QUICK for word in ("--set", setting)]
    done = call(environment / "bin" / "shrink", "run", "digits", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (record,) = tmp_path.glob("runs/*/record.json")
    assert {"report.html", "config.yaml", "run.log"} <= {path.name for path in record.parent.iterdir()}
    assert files_of(environment) == before
    planned = call(environment / "bin" / "shrink", "plan", "digits", *words, cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "cached" in planned.stdout


def files_of(environment: Path) -> set[Path]:
    """All but what Python compiles."""
    return {path for path in environment.rglob("*") if path.is_file() and path.suffix != ".pyc"}
