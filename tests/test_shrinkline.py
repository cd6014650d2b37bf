"""The Python face: objects in place of names, with the chain, the store and the record that a pipeline file has."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shrinkline
from pipeline.errors import ConfigError
from pipeline.records.folder import load_run, verified
from stages.export.onnx import OnnxExport
from tests.conftest import TinyNet
from tests.contexts import tiny_task

ROOT = Path(__file__).parents[1]
Pair = tuple[Tensor, Tensor]


def pairs() -> dict[str, Pair]:
    """The tiny task as tensors."""
    task = tiny_task()
    return {
        name: (
            torch.stack([s[i][0]["input"] for i in range(len(s))]),
            torch.tensor([int(s[i][1]) for i in range(len(s))]),
        )
        for name, s in task.splits.items()
        if name != "calibration"
    }


@pytest.fixture(scope="module")
def data() -> dict[str, Pair]:
    return pairs()


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(TinyNet())


def compressed(model: Any, data: Any, folder: Path, **options: Any) -> Any:
    return shrinkline.compress(
        model, **{"runs": folder / "runs", "track": False, "stages": ["export.onnx"], **data, **options}
    )


def planned(model: Any, data: Any, folder: Path, **options: Any) -> Any:
    """What is refused before work, or the config that it comes to."""
    from pipeline import runner
    from pipeline.build.live.call import arranged

    splits = {name: data.get(name) for name in ("train", "validation", "test")}
    others = {name: value for name, value in data.items() if name not in splits}
    config, settings = arranged(model, splits, {"stages": ["export.onnx"], "runs": folder, **others, **options})
    with runner.planned(config, **settings) as (built, _):
        return built


def test_importing_it_takes_no_time() -> None:
    code = "import sys, time; t = time.perf_counter(); import shrinkline; d = time.perf_counter() - t; "
    code += "print(d); sys.exit(any(name in sys.modules for name in ('torch', 'mlflow', 'pydantic')))"
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert float(child.stdout) < 0.2


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Pair]) -> Any:
    """A module that nothing else can build, pruned, exported and quantized; as it is read again."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("live")
    model = nn.Sequential(TinyNet(16)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stages = [
        {"use": "distill.logits", "student": TinyNet(16), "epochs": 1},
        {"use": "prune.channels", "macs": 0.8},
        OnnxExport(),
        "quantize.static",
    ]
    made = compressed(model, data, folder, stages=stages, budget={"size": {"max": "80 kB"}}, seed=3)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return made


def test_a_live_module_goes_through_the_same_chain(result: Any) -> None:
    names = [stage.name for stage in result.record.stages]
    assert names == ["distill.logits", "prune.channels", "export.onnx", "quantize.static"]
    assert result.verdict == "pass"
    assert result.record.config["seed"] == 3
    assert result.file.is_file()
    assert result.report.is_file()
    on_disk = load_run(result.folder)
    assert verified(on_disk, on_disk.stages[-1], "file") == result.file


def test_what_is_read_again_is_the_same_with_absolute_paths(result: Any) -> None:
    again = shrinkline.load(result.folder)
    assert again.record == result.record
    for _, model in again.record.models:
        assert Path(model.file).is_absolute()
        assert Path(model.predictions).is_file()
        assert Path(model.folder).is_dir()
    assert verified(again.record, again.record.stages[0], "folder") == Path(again.record.stages[0].folder)


def test_a_notebook_shows_the_table_and_the_pictures_without_a_script_from_elsewhere(result: Any) -> None:
    page = result._repr_html_()
    assert "quantize" in page
    assert "&lt;svg" in page
    assert "src=" not in page.replace("srcdoc=", "")
    assert len(page) < 200_000
    assert "quantize.static" in repr(result)
    assert "pass: size_bytes" in repr(result)


def test_another_process_is_told_that_it_cannot_build_it(result: Any) -> None:
    from pipeline import model as models
    from pipeline.runner import resume

    with pytest.raises(ConfigError, match=r"the model, a Sequential, was given from Python .* `builder`"):
        models.load(result.folder / "start" / "model")
    with pytest.raises(ConfigError, match=r"the task, with 256 train, .* was given from Python .* same call again"):
        resume(result.folder)


SCRIPT = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shrinkline

print("begins")
torch.manual_seed(0)


class Scaled(nn.Module):
    factor = 2.0

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x):
        return self.body(x) * FACTOR


FACTOR = 1.0
x = torch.randn(200, 1, 4, 4)
y = x.flatten(1)[:, :3].argmax(1)
loader = lambda a, b: DataLoader(TensorDataset(x[a:b], y[a:b]), batch_size=16, shuffle=True)
for FACTOR in (1.0, 1.0, 2.0):
    torch.manual_seed(1)
    stages = ["export.onnx", {"use": "benchmark.latency", "rounds": 1, "seconds": 0.01, "warmup": 1, "score": False}]
    result = shrinkline.compress(Scaled(), train=loader(0, 80), validation=loader(80, 120), test=loader(120, 200),
                                 stages=stages, track=False)
    print("cached" if result.record.stages[0].cached else "made", result.record.stages[1].latency[0]["runtime"])
"""


def test_a_script_without_a_main_guard_is_run_once_and_its_code_is_in_the_keys(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == ["begins", *("made", "onnxruntime", "cached", "onnxruntime", "made", "onnxruntime")]
