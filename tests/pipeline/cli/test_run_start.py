"""The commands that chains are run with load a heavy library where it is used, and not before."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.records.record import Record
from tests.aliases import Make

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "configs" / "digits" / "compress.yaml"
COMPILER = ("torch._dynamo", "torch._inductor", "torch.onnx", "sympy")
HEAVY = (
    *COMPILER, "accelerate", "alembic", "datasets", "jinja2", "matplotlib", "mlflow", "networkx", "onnxscript",
    "onnxruntime.quantization", "optimum", "pandas", "plotly", "pyarrow", "sacrebleu", "scipy.stats", "sklearn",
    "sqlalchemy", "timm", "torch_pruning", "transformers",
)  # fmt: skip


def loaded(code: str, cwd: Path, status: int = 0) -> set[str]:
    """The modules that a process has loaded when it ends."""
    prefix = f"import atexit, sys; sys.path.insert(0, {str(ROOT)!r}); atexit.register(lambda: print(*sys.modules));"
    process = subprocess.run(
        [sys.executable, "-c", prefix + code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert process.returncode == status, process.stderr
    return set(process.stdout.splitlines()[-1].split())


def shrink(*words: object) -> str:
    return f"sys.argv[1:] = {[*map(str, words)]}; from pipeline.cli.app import main; main()"


def test_the_runner_is_imported_without_what_few_runs_need(tmp_path: Path) -> None:
    assert not loaded("import pipeline.runner", tmp_path) & {*HEAVY}


def test_a_plan_is_made_without_what_trains_tracks_and_reports(tmp_path: Path) -> None:
    plan = shrink("plan", DIGITS, "--runs", tmp_path / "runs")
    loaded(plan, tmp_path)  # exports and stages are tried once
    modules = loaded(plan, tmp_path)
    assert "torch" in modules
    assert not modules & {*HEAVY, "onnxruntime"}


@pytest.mark.slow
def test_a_run_that_finds_all_in_the_store_goes_without_what_makes_and_tracks(project: Make, tmp_path: Path) -> None:
    config, runs = project(), tmp_path / "runs"
    code = f"from pipeline.runner import run; run({str(config)!r}, runs={str(runs)!r}, track=False)"
    loaded(code, tmp_path)  # a process too: keys have the number of threads, which is another in tests
    assert {*HEAVY} & loaded(code, tmp_path) == {"jinja2"}
    assert all(stage.cached for stage in Record.load(max(runs.glob("2*"))).stages)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_wrong_key_is_told_before_torch_is_there(command: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(DIGITS.read_text() + "\nbudgets: {}\n")
    modules = loaded(shrink(command, "wrong.yaml"), tmp_path, status=2)
    assert "pydantic" in modules
    assert not modules & {*HEAVY, "torch", "numpy", "scipy", "onnx", "onnxruntime"}
