"""A chain whose stages take no time, for tests of what is around the stages: killed, repeated and disturbed often."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import onnx
import pytest

from pipeline.cli import app
from pipeline.model import OnnxModel, TorchModel
from pipeline.records.record import Record
from pipeline.run import measuring
from pipeline.runner import run
from tests.forked import Ended
from tests.graphs import graph, node
from tests.users import FLAT, chain_of, stage_file

FILES = {
    "models.py": FLAT,
    "noise.py": stage_file(
        """
        module = copy.deepcopy(model.module)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(self.strength * torch.randn_like(parameter))
        ctx.report("noise", {"first": float(module[1].bias[0])})
        return replace(model, module=module)
        """,
        "strength: float = 0.1",
        "Noise",
    ),
    "look.py": stage_file(
        """
        ctx.report("seen", {"parameters": len(list(model.module.parameters()))})
        return model
        """,
        name="Look",
    ),
}
CHAIN = chain_of("noise.py, strength: 0.2", "look.py", "export.onnx", baseline="noise.py")
CHAIN += "budget: {size: {max: 1 MB}}\n"


@pytest.fixture
def quick(project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """quick(chain=..., **{"file.py": text}): like `project`, with a chain that takes a moment."""
    monkeypatch.setattr(measuring, "deploy", quick_deploy)

    def make(chain: str = CHAIN, **files: Any) -> Path:
        return project(chain, **{**FILES, **files})

    return make


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ended]]:
    """shrink("store", ...): the command in this process, which starts none to log to MLflow."""
    monkeypatch.setattr("pipeline.report.mlflow.following.following", lambda *_: nullcontext())
    log = logging.getLogger("shrinkline")
    before = log.handlers[:], log.propagate, log.level

    def call(*args: Any) -> Ended:
        monkeypatch.setattr(sys, "argv", ["shrink", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            app.main()
        assert isinstance(ended.value.code, int)
        printed = capsys.readouterr()
        return Ended(ended.value.code, printed.err, printed.out)

    yield call
    log.handlers[:], log.propagate = before[:2]
    log.setLevel(before[2])


def quick_run(chain: Path, runs: Path, barrier: Any = None) -> None:
    """A run in a child, which the patch of `quick` does not reach; children that share a barrier begin at once."""
    measuring.deploy = quick_deploy  # type: ignore[attr-defined]
    if barrier:
        barrier.wait()
    run(chain, runs=runs, track=False)


def quick_deploy(model: TorchModel, path: Path) -> OnnxModel:
    """What `deploy` does, for `flat` alone and without torch's exporter, which takes a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = dict(zip(("w", "b"), model.module.state_dict().values(), strict=True))
    nodes = [node("Flatten", ["input"], ["flat"]), node("Gemm", ["flat", "w", "b"], ["output"], transB=1)]
    onnx.save(graph(nodes, {"input": ["batch", 1, 8, 8]}, {"output": ["batch", 4]}, weights), path)
    return OnnxModel(path, model.example)


@pytest.fixture
def whole(kept: dict[str, Record], folder: Path) -> Record:
    """A run of the module's `folder` that nothing disturbs, made once."""
    if not kept:
        kept["record"] = run(folder / "chain.yaml", runs=folder / "whole", track=False)
    return kept["record"]
