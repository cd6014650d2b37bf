"""benchmarks/compress.py: examples come back as written, a tool that fails is told, and figures stand side by side."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.making import REQUIREMENTS, WAYS, Cost, Way, made
from benchmarks.peers.samples import examples, is_text, labels, write
from benchmarks.peers.table import COLUMNS, Row, aims, figures, line

ROOT = Path(__file__).parents[1]


def row(tool: str, method: str, wrong: int, size: int, ms: float, seconds: float = 10.0) -> Row:
    right = np.ones(1000)
    right[:wrong] = 0
    return Row(Way(tool, method), Cost(seconds, None, 10**8, size, Path("x"), ""), right, [ms, ms * 1.01, ms * 0.99])


def test_the_examples_come_back_in_their_order(tmp_path: Path) -> None:
    rows = [{"input_ids": np.full((1, 1 + i), i), "attention_mask": np.ones((1, 1 + i), int)} for i in range(12)]
    write(tmp_path / "samples.npz", {"calibration": (rows[:1], [1]), "validation": (rows, list(range(12)))})
    read = examples(tmp_path / "samples.npz", "validation")
    assert [one["input_ids"].tolist() for one in read] == [one["input_ids"].tolist() for one in rows]
    assert labels(tmp_path / "samples.npz", "validation").tolist() == list(range(12))
    assert is_text(read)
    assert len(examples(tmp_path / "samples.npz", "calibration")) == 1


@pytest.mark.parametrize("tool", REQUIREMENTS)
def test_a_tool_that_fails_is_told_with_its_last_line(tool: str, tmp_path: Path) -> None:
    python = tmp_path / tool / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.executable).resolve())  # an environment without any package
    cost = made(Way(tool, "static"), tmp_path, tmp_path, 0.003)
    assert cost.file is None
    assert cost.error.startswith("ended with 1: ModuleNotFoundError: No module named ")
    assert 0 < cost.seconds < 60
    assert cost.peak_bytes > 10**6


def test_each_network_has_every_tool_and_ours() -> None:
    for ways in WAYS.values():
        assert {way.tool for way in ways} == {*REQUIREMENTS, "ours"}


def test_ours_is_set_beside_the_smallest_the_fastest_and_the_controlled() -> None:
    fp32 = row("fp32", "", 50, 1000, 2.0)
    rows = [
        row("olive", "static", 60, 300, 1.0),
        row("nncf", "accuracy", 50, 400, 0.9, seconds=40),
        row("ours", "static + pack", 55, 150, 1.8),
    ]
    first, second = aims(rows, fp32, fp32.latencies)
    assert first.startswith("ours, static + pack: bytes 0.500 of olive, static, points more than it +0.50 [+0.0")
    assert "latency 2.00 [2.00, 2.00] of nncf, accuracy, slower" in first
    assert second == "ours, static + pack: seconds 0.25 of nncf, accuracy"
    assert not [*aims(rows[2:], fp32, fp32.latencies)]


def test_a_line_has_every_column() -> None:
    fp32 = row("fp32", "", 50, 1000, 2.0)
    told = figures(row("olive", "static", 60, 250, 1.0), fp32, fp32.latencies)
    cells = line(told, "olive, static")
    assert len(cells) == len(COLUMNS)
    assert cells[:6] == ["olive, static", "10.0", "100", "250", "0.250", "94.00"]
    assert cells[6].startswith("-1.00 [-1.")
    assert cells[7:] == ["1.000", "0.50 [0.50, 0.50]"]


def test_its_help_names_the_environments() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "compress.py"), "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
    assert {"--environments", "--work", "--limit"} <= set(done.stdout.split())
