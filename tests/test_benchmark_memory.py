"""benchmarks/memory.py prints what it says, on few examples."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "memory.py"
ROW = re.compile(r"\| (.+) \| (\d+) \| (\d+) \| (\d+\.\d{3}) \|")
STEPS = [
    "imports",
    "reading and tokenizing",
    "looking at every example",
    "train, export",
    "distill from kept logits, export",
]


def measured(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, SCRIPT, *words], env=environment, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.mark.slow
def test_both_sizes_stand_beside_each_other_after_every_step() -> None:
    done = measured("--small", "100", "--large", "300", "--held-out", "64")
    assert done.returncode == 0, done.stderr
    title, rule, *rows = done.stdout.splitlines()
    assert (title, rule) == ("| peak RSS in MB after | 100 examples | 300 | ratio |", "|---|---|---|---|")
    found = [ROW.fullmatch(row) for row in rows]
    assert [row and row[1] for row in found] == STEPS
    few, many, ratios = ([float(row[column]) for row in found if row] for column in (2, 3, 4))
    assert few == sorted(few), "a peak never sinks"
    assert many == sorted(many)
    assert ratios == pytest.approx([b / a for a, b in zip(few, many, strict=True)], abs=2e-3)
    assert min(few) > 100, "a process that has imported torch has more than 100 MB"


def test_its_help_names_the_sizes() -> None:
    done = measured("--help")
    assert done.returncode == 0
    assert {"--small", "--large", "--held-out"} <= set(done.stdout.split())
