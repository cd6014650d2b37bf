"""Nothing stale is called cached: what a chain is made of is edited, and the result is made anew, in any process."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.build.build import build
from pipeline.build.source import load_config
from pipeline.run import measuring, plan
from pipeline.run.store.changes import changed
from pipeline.run.store.key import Keys
from pipeline.run.store.store import Store
from pipeline.runner import run
from tests.forked import exit_code
from tests.pipeline.conftest import FILES, quick_deploy
from tests.users import chain_of

Make = Callable[..., Path]

STAGE = """
import importlib, json, os
from functools import cache
from pathlib import Path
import numpy as np
from pipeline.model import TorchModel
from pipeline.context import Context
from pipeline.stage import Stage
import teamlib.base
from teamlib import nets
from .helpers import amount as helper
from .inner.deep import amount as inner

HERE = Path(__file__).resolve().parent
AMOUNT = 1
AT_IMPORT = int((HERE / "at_import.txt").read_text())
NAMED = importlib.import_module("teamlib.named").amount

def of(name):
    return int((HERE / name).read_text()) if (HERE / name).exists() else 0

@cache
def once():
    return of("once.txt")

class Mine(Stage):
    amount: int = 0

    def check(self, before, preview):
        once()
        try:
            open(HERE / "override.txt").close()
        except FileNotFoundError:
            pass
        return ()

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        from .late import amount as late
        ctx.report("amounts", {
            "mine.py": AMOUNT, "helpers.py": helper, "inner/deep.py": inner, "late.py": late,
            "lib/teamlib/base.py": teamlib.base.amount, "lib/teamlib/nets.py": nets.amount,
            "lib/teamlib/named.py": NAMED, "lib/teamlib/called.py": importlib.import_module("teamlib.called").amount,
            "at_import.txt": AT_IMPORT, "once.txt": once(), "in_run.txt": of("in_run.txt"),
            "override.txt": of("override.txt"), "array.npy": int(np.load(HERE / "array.npy")),
            "gain.txt": model.module.gain, "ours": int(os.environ["TEAM_OURS"]), "late": int(os.getenv("TEAM_LATE", 0)),
        })
        return model
"""
MODELS = """
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 4))
        self.gain = int((Path(__file__).resolve().parent / "gain.txt").read_text())
"""
DATA = """
import json, os
from functools import partial
from pathlib import Path
import torch
from torch.utils.data import TensorDataset
from pipeline.task import Split, Task, cross_entropy

FACTOR = float(os.environ.get("TEAM_FACTOR", "1"))

def scaled(predictions, targets, by):
    return torch.full((len(targets),), float(by))

def task():
    images, labels = torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(120) % 4
    parts = [Split(TensorDataset(images[a:b], labels[a:b])) for a, b in ((0, 60), (60, 80), (80, 120))]
    scale = json.loads((Path(__file__).resolve().parent / "scale.json").read_text())
    return Task(*parts, loss=cross_entropy, score=partial(scaled, by=scale * FACTOR), logits=True)
"""
TEXTS = ("at_import.txt", "once.txt", "in_run.txt", "gain.txt")
MODULES = (
    "helpers.py",
    "inner/deep.py",
    "late.py",
    *(f"lib/teamlib/{n}.py" for n in ("base", "nets", "named", "called")),
)
EDITED = (*MODULES, *TEXTS, "mine.py", "override.txt", "array.npy", "ours", "late")


def edit(folder: Path, what: str, amount: int) -> None:
    """Have a file or a variable say another amount."""
    if what.endswith(".npy"):
        import numpy

        numpy.save(folder / what, amount)
    elif what in ("ours", "late"):
        pytest.MonkeyPatch().setenv(f"TEAM_{what.upper()}", str(amount))
    elif what == "mine.py":
        (folder / what).write_text(STAGE.replace("AMOUNT = 1", f"AMOUNT = {amount}"))
    else:
        (folder / what).parent.mkdir(parents=True, exist_ok=True)
        (folder / what).write_text(f"amount = {amount}\n" if what.endswith(".py") else f"{amount}")


@pytest.fixture
def chain(quick: Make, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A chain whose stage reports an amount from each place that it reads."""
    for name in ("TEAM_OURS", "TEAM_LATE", "TEAM_FACTOR"):  # so that they are put back
        monkeypatch.setenv(name, "1")
    path = quick(chain_of("mine.py", model="use: models.py:Net"), **{"models.py": MODELS, "data.py": DATA})
    for what in EDITED:
        if what != "override.txt":
            edit(path.parent, what, 1)
    (path.parent / "scale.json").write_text("0.5")
    monkeypatch.syspath_prepend(str(path.parent / "lib"))
    return path


def here(chain: Path) -> dict[str, Any]:
    """A run in this process: what the stage reports, whether it is cached, and the score."""
    measuring.deploy = quick_deploy  # type: ignore[attr-defined]
    record = run(chain, runs=chain.parent / "runs", track=False)
    (stage,) = record.stages
    reports: dict[str, Any] = {**stage.reports}
    return {**reports.get("amounts", {}), "cached": stage.cached, "score": stage.score, "digest": stage.digest}


def elsewhere(chain: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    assert exit_code(tell, chain) == 0
    told: dict[str, Any] = json.loads((chain.parent / "told.txt").read_text())
    return told


def tell(chain: Path) -> None:
    sys.path.insert(0, str(chain.parent / "lib"))
    (chain.parent / "told.txt").write_text(json.dumps(here(chain)))


def states(chain: Path) -> list[dict[str, Any]]:
    config, source = load_config(chain)
    return plan.states(build(config, source), Store(chain.parent / "runs" / "store"))


FEW = ("inner/deep.py", "lib/teamlib/called.py", "once.txt", "override.txt", "in_run.txt", "late")


@pytest.mark.parametrize("edited", [FEW, pytest.param(EDITED, marks=pytest.mark.slow)], ids=["few", "all"])
def test_in_one_process_as_in_a_notebook_every_edit_is_run(chain: Path, edited: tuple[str, ...]) -> None:
    here(chain)
    for what in edited:
        edit(chain.parent, what, 2)
        after = here(chain)
        assert (after[what], after["cached"]) == (2, False), what
    new = elsewhere(chain)
    assert new["cached"]  # what another process makes of the same is the same, and nothing old is kept as new
    assert {new[what] for what in edited} == {2}


@pytest.mark.slow
def test_every_edit_between_two_processes_is_run(chain: Path) -> None:
    elsewhere(chain)
    for what in EDITED:
        edit(chain.parent, what, 2)
        after = elsewhere(chain)
        assert (after[what], after["cached"]) == (2, False), what
    assert elsewhere(chain)["cached"]


def test_a_file_and_a_variable_that_the_task_reads_are_named_by_plan(
    chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here(chain)["score"] == 0.5
    (chain.parent / "scale.json").write_text("0.25")
    assert states(chain)[0]["why"] == ["task.read.scale.json: changed"]
    assert here(chain)["score"] == 0.25
    monkeypatch.setenv("TEAM_FACTOR", "3")
    assert states(chain)[0]["why"] == ["task.environment.TEAM_FACTOR: changed"]
    assert here(chain)["score"] == 0.75
    assert "TEAM_FACTOR" in (parts := "".join(p.read_text() for p in chain.parent.rglob("parts.json")))
    assert '"3"' not in parts  # a value may be secret
    (chain.parent / "in_run.txt").write_text("7")
    assert states(chain)[0]["why"] == ["read.in_run.txt: changed"]


def test_a_module_that_was_imported_before_and_edited_since_is_imported_afresh(
    chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.base.code.afresh.INACCURACY", -(10.0**9))  # every file counts as edited since
    from teamlib import base

    edit(chain.parent, "lib/teamlib/base.py", 2)
    assert base.amount == 1
    assert here(chain)["lib/teamlib/base.py"] == 2


LOADING = """
from pathlib import Path
import torch
from safetensors.torch import load_file
from torch import nn
HERE = Path(__file__).resolve().parent

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

def pickled():
    module = net()
    module.load_state_dict(torch.load(HERE / "own.pt"))
    return module

def safe():
    module = net()
    module.load_state_dict(load_file(HERE / "own.safetensors"))
    return module
"""


HOLDING = """
import torch
from functools import partial
from pathlib import Path
from safetensors.torch import load_file
from torch.utils.data import TensorDataset
from pipeline.task import Split, classification, cross_entropy

WEIGHT = load_file(Path(__file__).resolve().parent / "own.safetensors")["1.bias"]

def weighted(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs["output"], targets, weight=WEIGHT)

class Weighted:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, outputs, targets):
        return torch.nn.functional.cross_entropy(outputs["output"], targets, weight=self.weight)

OWN = partial(lambda o, t, by: cross_entropy(o, t), by=WEIGHT)
KINDS = {"global": weighted, "partial": OWN, "object": Weighted(WEIGHT)}

def task(kind):
    images, labels = torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(120) % 4
    parts = [Split(TensorDataset(images[a:b], labels[a:b])) for a, b in ((0, 60), (60, 80), (80, 120))]
    made = classification(*parts)
    return type(made)(*parts, loss=KINDS[kind], score=made.score, logits=True)
"""


@pytest.mark.parametrize("kind", ["global", "partial", "object"])
def test_tensors_that_the_loss_holds_are_part_of_the_key_whoever_has_read_them(quick: Make, kind: str) -> None:
    chain = quick(chain_of("look.py", task=f"data.py, kind: {kind}"), **{"data.py": HOLDING})
    lines = []
    for value in (1.0, 2.0):
        save_file({"1.bias": torch.full((4,), value)}, chain.parent / "own.safetensors")
        config, source = load_config(chain)
        lines.append(Keys(build(config, source), torch.device("cpu")).measure({}))
    assert changed(*lines) == ["task.read.own.safetensors: changed", "task.weights.loss: changed"]


def test_what_is_edited_while_a_run_lasts_does_not_run(quick: Make, tmp_path: Path) -> None:
    text = FILES["noise.py"].replace(
        "module = copy", "(FOLDER / 'models.py').write_text(EDITED)\n        module = copy"
    )
    text += "\nEDITED = (FOLDER / 'models.py').read_text().replace('Flatten(),', 'Flatten(), nn.Sigmoid(),')\n"
    chain = quick(chain_of("noise.py", "look.py"), **{"noise.py": text})
    models = (chain.parent / "models.py").read_text()
    first = run(chain, runs=tmp_path / "runs", track=False)
    assert "Sigmoid" in (chain.parent / "models.py").read_text()
    (chain.parent / "models.py").write_text(models)
    other = run(chain, runs=tmp_path / "other", track=False)
    assert [stage.score for stage in first.stages] == [stage.score for stage in other.stages]


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("builder", ["pickled", "safe"])
def test_the_checkpoint_that_a_builder_loads_is_part_of_the_key(project: Make, role: str, builder: str) -> None:
    other = {
        "teacher": "student: {use: 'models.py:net'}, teachers: [{use: 'models.py:%s'}]",
        "student": "student: {use: 'models.py:%s'}",
    }
    chain = project(
        chain_of(f"distill.logits, {other[role] % builder}", model="use: 'models.py:net'"), **{"models.py": LOADING}
    )
    lines = []
    for value in (0.0, 1.0):
        weights = {"1.weight": torch.full((4, 64), value), "1.bias": torch.zeros(4)}
        torch.save(weights, chain.parent / "own.pt")
        save_file(weights, chain.parent / "own.safetensors")
        config, source = load_config(chain)
        built = build(config, source)
        lines.append(Keys(built, torch.device("cpu")).stage(built.stages[0][1], "distill.logits", {}, None))
    weights_line = f'weights.{{"use":"models.py:{builder}","arguments":{{}}}}: changed'
    assert changed(*lines) == [f"read.own.{'pt' if builder == 'pickled' else 'safetensors'}: changed", weights_line]


def test_what_another_process_reads_is_warned_of(quick: Make) -> None:
    calling = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])\n"
    config, source = load_config(quick(**{"look.py": calling + FILES["look.py"]}))
    (warning,) = [text for text in build(config, source).warnings if "another process" in text]
    assert warning.startswith("stages[1] (look.py): it starts python")
