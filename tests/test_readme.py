"""The README is true: its files are written, its commands run, its targets exist, its map is the tree."""

import os
import re
import runpy
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path

import pytest

from pipeline.records.record import Record
from tests import forked

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FILES = dict(re.findall(r'```\w+ title="([\w.]+)"\n(.*?)```', README, flags=re.DOTALL))
FIRST = ("shrink plan my.yaml", "shrink run my.yaml", "shrink bisect runs/RUN")
"""The commands that run in interpreters of their own; the others run in forks of one that is warm."""
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's files, as a newcomer writes them, and the default config."""
    made = tmp_path_factory.mktemp("newcomer")
    for name, text in FILES.items():
        (made / name).write_text(text)
    (made / "configs").symlink_to(ROOT / "configs")
    return made


def shrink(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What a command gives in an interpreter of its own, as a newcomer calls it."""
    command, environment = [sys.executable, "-m", "pipeline", *words], {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_model_data_and_stage_of_ones_own_take_under_20_lines_each() -> None:
    assert {"models.py", "data.py", "my_stage.py", "my.yaml"} <= set(FILES)
    assert all(len(text.strip().splitlines()) < 20 for text in FILES.values())


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("shrink ") and "digits" not in c])
def test_a_command_of_the_readme_runs(command: str, folder: Path) -> None:
    newest = max((folder / "runs").glob("*/record.json"), default=folder).parent
    words = command.replace("runs/RUN", str(newest)).split("#")[0].split()[1:]
    done = (shrink if command.startswith(FIRST) else forked.shrink)(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_every_stage_of_its_example_pays(folder: Path) -> None:
    done = forked.shrink("run", "my.yaml", "--json", cwd=folder)
    record = Record.model_validate_json(done.stdout)
    sizes = [model.size_bytes for model in (record.baseline, *record.stages)]
    baseline, distilled, _, _, quantized, packed = sizes
    assert packed < quantized < distilled < baseline
    (first, *_) = record.stages[-1].reports["packing"]["tensors"]
    assert first["encoding"].startswith("codebook4")  # what rounding brought
    assert record.final.retention.value > 0.97
    told = re.search(r"([\d.]+) kB become ([\d.]+), ([\d.]+) and at last ([\d.]+) kB", " ".join(README.split()))
    sizes = [size / 1000 for size in (baseline, distilled, quantized, packed)]
    assert [float(size) for size in told.groups()] == pytest.approx(sizes, rel=0.1)  # the last follows what was trained


def test_the_chain_that_it_recommends_fits_its_model_and_data(folder: Path) -> None:
    (stages,) = re.findall(r"```yaml\n(stages:\n  - {use: distill\.logits.*?)```", README, flags=re.DOTALL)
    (folder / "recommended.yaml").write_text(FILES["my.yaml"].partition("stages:")[0] + stages)
    done = forked.shrink("plan", "recommended.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    names = re.findall(r"use: ([a-z.]+)", stages)
    assert names == ["distill.logits", "prune.channels", "quantize.aware", "export.onnx", "quantize.pack"]
    assert all(name in done.stdout for name in names)


@pytest.mark.parametrize("command", [c.split("#")[0].strip() for c in COMMANDS if "make " in c])
def test_a_make_target_of_the_readme_exists(command: str) -> None:
    words = [word for word in command.split() if "=" not in word]
    done = subprocess.run([*words, "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def script(file: Path, out: Path) -> None:
    """Run a script as Python runs it: in its folder, which is on the path."""
    sys.path.insert(0, str(file.parent))
    with chdir(file.parent), out.open("w") as stream, redirect_stdout(stream):
        runpy.run_path(str(file))


def test_the_python_of_the_readme_runs_in_10_lines(folder: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(import shrinkline.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    (folder / "script.py").write_text(code)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    child = forked.start(script, folder / "script.py", tmp_path / "out", environment=environment)
    child.join(forked.PATIENCE)
    assert child.exitcode == 0
    assert (tmp_path / "out").read_text().startswith("pass ")


def test_the_map_names_every_room_and_nothing_else() -> None:
    (tree,) = re.findall(r"```text\n(pipeline/.*?)```", README, flags=re.DOTALL)
    assert len(tree.splitlines()) <= 22
    for top, part in re.findall(r"^(pipeline|stages)/.*\n((?:  .*\n)+)", tree, flags=re.MULTILINE):
        names = set(re.findall(r"^  (\S.*?)(?:  |$)", part, flags=re.MULTILINE))
        mapped = {name.strip("/,") for names_of_line in names for name in names_of_line.split()}
        there = [path for path in (ROOT / top).iterdir() if not path.name.startswith("_")]
        assert mapped == {path.name for path in there if path.is_dir() or path.suffix == ".py"}


def test_pictures_and_linked_files_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert all((ROOT / link).exists() for link in links)
