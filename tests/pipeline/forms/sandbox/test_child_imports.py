"""Child processes start fast and small: none of them loads torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
MODULES = [
    "pipeline.forms.sandbox.child", "stages.quantize.quantizing.child", "stages.benchmark.runners.child",
    "pipeline.report.mlflow.follower", "pipeline.report.mlflow.following",
]  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_a_child_process_does_not_import_torch(module: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
