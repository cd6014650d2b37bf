"""A file with strategies whose stages take no time, one of which can be told to fail."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.users import FLAT, stage_file

FILES = {
    "models.py": FLAT,
    "fit.py": stage_file(
        """
        # The brightest quadrant, with noise on the weights: what it gets wrong depends on the noise and the seed.
        module = copy.deepcopy(model.module)
        weight = torch.zeros(4, 8, 8)
        for label in range(4):
            row, column = 4 * (label // 2), 4 * (label % 2)
            weight[label, row : row + 4, column : column + 4] = 1
        with torch.no_grad():
            module[1].weight.copy_(weight.flatten(1) + self.noise * torch.randn(4, 64))
            module[1].bias.zero_()
        return replace(model, module=module)
        """,
        "noise: float = 0.0",
        "Fit",
    ),
    "clock.py": """
from collections.abc import Mapping
from typing import ClassVar
from pydantic import JsonValue
from pipeline.model import Model, OnnxModel
from pipeline.context import Context
from pipeline.stage import Stage

class Clock(Stage):
    host_bound: ClassVar[bool] = True
    fails: str = ""

    def measure(self, models: Mapping[str, Model], ctx: Context) -> dict[str, JsonValue]:
        row = {"runtime": "clock", "threads": 1, "batch": 1, "ratio": {"value": 0.5, "low": 0.4, "high": 0.6}}
        return {name: {"failure": "told to"} if name.startswith(self.fails) else [row] for name in models}

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        return model
""",
    "fail.py": stage_file(
        """
        if self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.seed in (None, ctx.seed):
            raise StageError("it was told to fail")
        return model
        """,
        "killed: bool = False\nseed: int | None = None",
        "Fail",
    ),
}
STRATEGIES = """
task: {use: data.py}
model: {use: models.py:flat}
baseline:
  - {use: fit.py}
strategies:
  noisy:
    - {use: fit.py, noise: 1.5}
    - {use: export.onnx}
TIMED  close:
    - {use: fit.py, noise: 0.01}
    - {use: export.onnx}
    - {use: quantize.dynamic}
TIMED"""
TIMED = "    - {use: benchmark.latency, rounds: 3, iterations: 10, warmup: 1}\n"


@pytest.fixture
def strategies(project: Callable[..., Path]) -> Callable[..., Path]:
    """strategies(more="", timed=True): the pipeline file, with more at its end; with benchmarks or without."""

    def make(more: str = "", timed: bool = True) -> Path:
        chain = STRATEGIES.replace("TIMED", TIMED if timed else "")
        return project((chain if timed else chain.replace("    - {use: quantize.dynamic}\n", "")) + more, **FILES)

    return make
