"""A key tells the whole story: what changes a result changes it, and nothing else does; plan tells the same story."""

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from pipeline.base.code import places
from pipeline.base.code.sources import Sources
from pipeline.base.devices import set_seed
from pipeline.build.build import Built, build
from pipeline.build.source import load_config
from pipeline.cli import app
from pipeline.run import plan
from pipeline.run.store import key
from pipeline.run.store.changes import Parts, changed
from pipeline.run.store.key import Keys, digest
from pipeline.run.store.store import Store
from pipeline.runner import run
from stages.benchmark import runtime
from tests.aliases import Capture, Make, Patch
from tests.users import chain_of

ROOT = Path(__file__).parents[4]

DATA = """
from pathlib import Path
import torch
from torch.utils.data import TensorDataset
from pipeline.task import Split, classification
from .shared import scale

def split(name, count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = scale * torch.rand(count, 1, 8, 8, generator=generator)
    images[0, 0, 0, 0] += float((Path(__file__).resolve().parent / name).read_text())
    return Split(TensorDataset(images, labels))

def task(train=256):
    return classification(split("train", train, 0), split("validation", 64, 1), split("test", 128, 2))
"""
STAGE = """
import copy
from dataclasses import replace
from pipeline.model import TorchModel
from pipeline.context import Context
from pipeline.stage import Stage
from pipeline.base.use import Reference
from .inner.helpers import amount

class Mine(Stage):
    strength: float = 0.5
    others: dict[str, Reference] = {}

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        module = copy.deepcopy(model.module)
        module[1].bias.data += self.strength * amount
        return replace(model, module=module)
"""
CHAIN = chain_of("mine.py, others: {a: {use: builders.py:make}}", "benchmark.latency")
FILES = {"data.py": DATA, "shared.py": "scale = 1.0\n", "mine.py": STAGE, "helpers.py": "unused = 1\n"}
FILES |= {"inner/helpers.py": "from ..deep import amount\n", "deep.py": "amount = 1\n"}
FILES |= {"builders.py": "def make():\n    pass\n", "train": "0", "validation": "0", "test": "0"}


@pytest.fixture
def chain(quick: Make, tmp_path: Path) -> Path:
    (tmp_path / "project" / "inner").mkdir(parents=True)
    return quick(CHAIN, **FILES)


def built(chain: Path, *overrides: str) -> Built:
    config, source = load_config(chain, overrides)
    set_seed(config.seed)
    return build(config, source)


def parts(chain: Path, *overrides: str, position: int = 0, device: str = "cpu", given: Any = "m") -> Parts:
    """Of a stage, or where position is -1 of the measuring."""
    made = built(chain, *overrides)
    keys = Keys(made, torch.device(device))
    model: Parts = {"digest": given}
    if position < 0:
        return keys.measure(model)
    return keys.stage(made.stages[position][1], made.config.stages[position].use, model, None)


def test_a_key_is_a_full_sha256_and_the_same_each_time(chain: Path) -> None:
    assert len(digest(parts(chain))) == 64
    assert digest(parts(chain)) == digest(parts(chain))


@pytest.mark.parametrize(("name", "line"), [
    ("mine.py", "code.mine.py: changed"),
    ("inner/helpers.py", "code.inner/helpers.py: changed"),
    ("deep.py", "code.deep.py: changed"),
    ("builders.py", "code.builders.py: changed"),
    ("data.py", "task.code.data.py: changed"),
    ("shared.py", "task.code.shared.py: changed"),
])  # fmt: skip
def test_a_users_file_that_the_stage_rests_on_is_part_of_its_key(chain: Path, name: str, line: str) -> None:
    before = parts(chain)
    file = chain.parent / name
    file.write_text(file.read_text() + "\n# other\n")
    assert changed(before, parts(chain)) == [line]


@pytest.mark.parametrize(("override", "line"), [
    ("stages.0.strength=0.25", "settings.strength: 0.5 -> 0.25"),
    ("seed=1", "seed: 0 -> 1"),
    ("stages.0.others={}", "settings.others.a: {...} -> null"),
    ("task.train=200", "task.arguments.train: null -> 200"),
])  # fmt: skip
def test_settings_and_seed_are_part_of_the_key(chain: Path, override: str, line: str) -> None:
    start, _, _ = line.partition(": {")
    assert any(found.startswith(start) for found in changed(parts(chain), parts(chain, override)))


@pytest.mark.parametrize(("split", "of_stage", "of_measuring"), [
    ("train", ["data.calibration: changed", "data.train: changed"], []),
    ("validation", ["data.validation: changed"], ["data.validation: changed"]),
    ("test", [], ["data.test: changed"]),
])  # fmt: skip
def test_each_sample_read_is_in_the_key(chain: Path, split: str, of_stage: list[str], of_measuring: list[str]) -> None:
    before = [parts(chain, position=position) for position in (0, -1)]
    (chain.parent / split).write_text("0.001")
    read = f"task.read.{split}: changed"  # that the task was made of it, for who knows what
    assert changed(before[0], parts(chain)) == [*of_stage, read]
    assert changed(before[1], parts(chain, position=-1)) == [*of_measuring, read]


def test_libraries_threads_device_model_and_baseline_are_in_the_key(chain: Path, monkeypatch: Patch) -> None:
    before = parts(chain)
    assert changed(before, parts(chain, device="meta")) == ['device: "cpu" -> "meta"']
    assert changed(before, parts(chain, given="other")) == ['model.digest: "m" -> "other"']
    real = key.version
    with monkeypatch.context() as patched:
        patched.setattr(key, "version", lambda name: "0" if name == "torch" else real(name))
        (line,) = changed(before, parts(chain))
        assert line.startswith("versions.torch: ")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    (line,) = changed(before, parts(chain))
    assert line.endswith("-> 77")


def test_the_machine_is_part_of_the_key_of_what_holds_on_it_alone(chain: Path, monkeypatch: Patch) -> None:
    before = [parts(chain, position=position) for position in (0, 1, -1)]
    monkeypatch.setattr(key, "host", lambda: "another")
    after = [parts(chain, position=position) for position in (0, 1, -1)]
    assert [bool(changed(a, b)) for a, b in zip(before, after, strict=True)] == [False, True, True]


def test_what_times_in_another_process_is_part_of_the_key(chain: Path, monkeypatch: Patch, tmp_path: Path) -> None:
    before = parts(chain, position=1)
    with monkeypatch.context() as patched:
        patched.setattr(runtime.metadata, "version", lambda package: "0")
        (line,) = changed(before, parts(chain, position=1))
        assert line.startswith("rests_on.0.version: ")
    runners = shutil.copytree(runtime.RUNNERS, tmp_path / "runners")
    (runners / "onnxruntime.py").write_text("changed = True\n")
    monkeypatch.setattr(runtime, "RUNNERS", runners)
    assert changed(before, parts(chain, position=1)) == ["rests_on.0.runners: changed"]


def test_what_scores_elsewhere_depend_on_is_in_the_key_of_what_is_told_them(chain: Path) -> None:
    def differing(*overrides: str) -> list[str]:
        return changed(before, parts(chain, *overrides, position=1))

    before = parts(chain, position=1)
    assert differing("budget={size: {max: 1 MB}}") == []
    assert differing("budget={retention: {min: 0.9}, drop: {max: 0.1}}") == [
        'scored.limits.drop: null -> {"max": 0.1}',
        'scored.limits.retention: null -> {"min": 0.9, "of": "baseline"}',
    ]
    assert differing("batch=3") == ["scored.batch: null -> 3"]
    (chain.parent / "test").write_text("0.001")
    assert differing() == ["scored.test: changed", "task.read.test: changed"]


def test_what_cannot_change_a_result_is_not_part_of_the_key(chain: Path, tmp_path: Path) -> None:
    before = parts(chain)
    assert str(tmp_path) not in json.dumps(before)
    assert parts(chain, "name=other", "budget={size: {max: 1 MB}}") == before
    chain.write_text(f"# a comment\n{chain.read_text()}")
    (chain.parent / "helpers.py").write_text("unused = 2  # of the same name as one that is used\n")
    assert parts(chain) == before
    moved = tmp_path / "elsewhere" / "deeper"
    shutil.copytree(chain.parent, moved)
    assert parts(moved / chain.name) == before


def test_what_is_edited_while_a_run_lasts_is_not_what_ran(chain: Path) -> None:
    made = built(chain)
    keys = Keys(made, torch.device("cpu"))
    (chain.parent / "mine.py").write_text("broken(")
    (chain.parent / "data.py").write_text("broken(")
    found = keys.stage(made.stages[0][1], "mine.py", {"digest": "m"}, None)
    (chain.parent / "mine.py").write_text(STAGE)
    (chain.parent / "data.py").write_text(DATA)
    assert found == parts(chain)


def test_the_code_that_rebuilds_a_model_is_part_of_the_key(chain: Path, tmp_path: Path) -> None:
    keys = Keys(built(chain), torch.device("cpu"))
    edits = [{"use": "deep.py:cut", "arguments": {}}, {"use": "torch.nn:Identity", "arguments": {}}]
    saved = {"form": "torch", "builder": {"use": "models.py:flat", "arguments": {}}, "edits": edits}
    (tmp_path / "model.json").write_text(json.dumps(saved))
    found = keys.model("d", tmp_path)
    assert found["digest"] == "d"
    assert isinstance(found["code"], dict)
    assert list(found["code"]) == ["deep.py", "models.py"]
    (tmp_path / "model.json").write_text(json.dumps({"form": "onnx"}))
    assert keys.model("d", tmp_path) == {"digest": "d", "code": {}}


def test_a_model_whose_weights_stayed_and_whose_code_changed_is_looked_at_anew(quick: Make, tmp_path: Path) -> None:
    chain = quick("task: {use: data.py}\nmodel: {use: models.py:flat}\nstages:\n  - {use: look.py}\n")
    before = run(chain, runs=tmp_path / "runs", track=False)
    models = chain.parent / "models.py"
    models.write_text(f"{models.read_text()}    # nn.Sequential(nn.Tanh(), ...) would have the same weights\n")
    after = run(chain, runs=tmp_path / "runs", track=False)
    assert after.stages[0].digest == before.stages[0].digest
    assert (before.stages[0].cached, after.stages[0].cached) == (False, False)
    assert before.stages[0].uses != after.stages[0].uses


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A copy of our packages that may be changed."""
    for package in places.PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / "ours" / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(places, "OURS", tmp_path / "ours")
    return tmp_path / "ours"


@pytest.mark.parametrize(("stage", "imported", "other"), [
    ("distill/logits.py", "stages/kd/losses/logits.py", "stages/prune/channels.py"),
    ("distill/logits.py", "stages/trainer/loop.py", "stages/quantize/static.py"),
    ("quantize/static.py", "stages/quantize/quantizing/quantizer.py", "stages/trainer/loop.py"),
    ("export/onnx.py", "pipeline/model.py", "pipeline/runner.py"),
])  # fmt: skip
def test_a_stages_code_has_its_imports_and_no_other_stage(ours: Path, stage: str, imported: str, other: str) -> None:
    before = Sources().code([ours / "stages" / stage])
    assert f"stages/{stage}" in before
    assert other not in before
    (ours / imported).write_text((ours / imported).read_text() + "\n# other\n")
    assert changed(before, Sources().code([ours / "stages" / stage])) == [f"{imported}: changed"]


def test_installed_libraries_count_by_their_version_and_not_file_by_file(ours: Path) -> None:
    (ours / "numpy").mkdir()  # where we are installed, they lie beside us
    (ours / "numpy" / "__init__.py").write_text("")
    (ours / "mine.py").write_text("import numpy\nfrom stages.kd.losses import logits\n")
    found = list(Sources().code([ours / "mine.py"]))
    assert {"mine.py", "stages/kd/losses/__init__.py", "stages/kd/losses/logits.py"} <= set(found)
    assert not any("numpy" in name for name in found)


def test_a_built_in_task_is_part_of_the_key(project: Make) -> None:
    chain = "task: {use: digits}\nmodel: {use: models.py:Net}\nstages:\n  - {use: export.onnx}\n"
    net = "from torch import nn\ndef Net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    task = parts(project(chain, **{"models.py": net}))["task"]
    assert isinstance(task, dict)
    assert isinstance(task["code"], dict)
    assert "pipeline/tasks/digits.py" in task["code"]


# plan


def planned(chain: Path, *overrides: str) -> list[tuple[str, list[str]]]:
    store = Store(chain.parent / "runs" / "store")
    return [(state["state"], state["why"]) for state in plan.states(built(chain, *overrides), store)]


ANEW = ("would run", ["its input would be made anew"])
CACHED: tuple[str, list[str]] = ("cached", [])


def test_plan_tells_what_the_run_then_does(quick: Make) -> None:
    chain = quick()
    runs = chain.parent / "runs"

    def done(*overrides: str) -> list[str]:
        record = run(chain, overrides=overrides, runs=runs, track=False)
        return ["cached" if made.cached else "would run" for made in (record.baseline, *record.stages)]

    first = planned(chain)
    assert first == [("would run", ["there is no result of this stage yet"]), ANEW, ANEW, ANEW]
    assert [state for state, _ in first] == done()
    assert planned(chain) == [CACHED] * 4
    assert done() == ["cached"] * 4

    override = "stages.0.strength=0.3"
    second = planned(chain, override)
    assert second == [CACHED, ("would run", ["settings.strength: 0.2 -> 0.3"]), ANEW, ANEW]
    assert [state for state, _ in second] == done(override)

    noise = chain.parent / "noise.py"
    noise.write_text(noise.read_text().replace("self.strength *", "-self.strength *"))
    third = planned(chain)
    assert third == [("would run", ["code.noise.py: changed"]), ANEW, ANEW, ANEW]
    assert [state for state, _ in third] == done()


def test_plan_neither_trusts_nor_moves_a_damaged_result(quick: Make) -> None:
    chain = quick()
    record = run(chain, runs=chain.parent / "runs", track=False)
    entry = chain.parent / "runs" / "store" / "entries" / str(record.stages[0].key)
    (entry / "result.json").write_text("{}")
    assert planned(chain) == [CACHED, ("would run", ["its stored result is damaged"]), ANEW, ANEW]
    assert entry.is_dir()


def test_plan_explains_on_the_terminal_and_as_json(quick: Make, capsys: Capture, monkeypatch: Patch) -> None:
    chain = quick()
    runs = chain.parent / "runs"
    run(chain, runs=runs, track=False)
    other = built(chain, "stages.0.strength=0.3")
    for explain in (False, True):
        shown = StringIO()
        plan.show(other, Store(runs / "store"), Console(file=shown, width=160), explain=explain)
        assert ("settings.strength: 0.2 -> 0.3" in shown.getvalue()) == explain
        assert "would run" in shown.getvalue()
    monkeypatch.setattr(app, "_log", lambda debug: None)
    app.app(["plan", str(chain), "--runs", str(runs), "--set", "seed=3", "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert told["chain"][0]["state"] == "would run"
    assert "seed: 0 -> 3" in told["chain"][0]["why"]
