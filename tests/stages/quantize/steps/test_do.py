"""The steps as the child that runs them has them."""

import subprocess
import sys


def test_steps_are_imported_without_torch() -> None:
    code = "import sys, stages.quantize.quantizing.child; print('torch' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout) == (0, "False\n"), child.stderr
