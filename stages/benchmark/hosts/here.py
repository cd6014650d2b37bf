"""This machine."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from pipeline.errors import StageError
from stages.benchmark.hosts.host import Machine
from stages.benchmark.processes.module import ROOT, pools, run_module
from stages.benchmark.runners.loaded import Spec


@dataclass(frozen=True)
class Here(Machine):
    """Runs processes on this machine.

    Args:
        module: what they run.
    """

    module: str = "stages.benchmark.runners.child"

    def run(self, spec: Spec, folder: Path, did: str) -> dict[str, Any]:
        """What a fresh process tells; see `Machine.run`."""
        path, result = folder / "spec.json", folder / "result.json"
        result.unlink(missing_ok=True)
        path.write_text(json.dumps({**spec, "result": str(result), "began": monotonic()}))
        who = f"the process that {did}"
        python, root = spec.get("python", sys.executable), Path(spec.get("root", ROOT))
        run_module(self.module, [path], who, python, root, environment=pools(spec.get("threads", 1)))
        if not result.is_file():
            raise StageError(f"{who} ended without a result")
        return dict(json.loads(result.read_text()))


HERE = Here()
