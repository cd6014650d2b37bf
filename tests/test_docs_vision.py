"""docs/vision-in-15-minutes.md up to its plan: its files fit each other, and `shrink init` writes what it says.

The runs that follow there take longer; test_tutorials.py does them.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from tests.forked import shrink

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "vision-in-15-minutes.md").read_text()
FILES = dict(re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```', TEXT, flags=re.DOTALL | re.MULTILINE))
COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)).splitlines()
QUICK = ("python make_pictures.py", "shrink init", "shrink plan")


def test_from_files_to_a_plan(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    done = [follow(line, tmp_path) for line in COMMANDS if line.startswith(QUICK)]
    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]
    stages = yaml.safe_load((tmp_path / "my.yaml").read_text())["stages"]
    assert [stage["use"] for stage in stages] == [
        *("distill.logits", "prune.channels", "quantize.aware", "export.onnx", "quantize.pack"),
    ]
    assert stages[0]["student"] == {"shrink_of": "teacher", "width": 16}
    assert "warning" not in done[-1].stdout


def follow(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program, *words = shlex.split(line)
    if program == "shrink":
        return shrink(*words, cwd=folder)
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300)


def test_what_it_overrides_is_in_the_config() -> None:
    (run,) = [line for line in COMMANDS if line.startswith("shrink run")]
    assert re.findall(r"--set (\S+)=", run) == ["baseline.0.epochs", "stages.0.epochs", "stages.2.epochs"]
