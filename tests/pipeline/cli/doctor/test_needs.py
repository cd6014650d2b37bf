"""What `shrink doctor CONFIG` finds missing, and that it runs nothing of what the config names."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.cli.doctor.finding import Finding
from pipeline.cli.doctor.needs import needs
from pipeline.cli.doctor.sources import Absent, missing_imports, source_of
from tests.aliases import Make, Patch
from tests.forked import shrink
from tests.pipeline.forms.sandbox.foreign_files import classifier

STATE = {"weight": torch.ones(30, 20), "bias": torch.zeros(30)}

WHOLE = """
task: {use: data.py}
model: {use: models.py:TinyNet, weights: net.safetensors}
stages:
  - {use: distill.logits, student: {use: models.py:TinyNet, width: 4}}
  - {use: mine.py}
  - {use: export.onnx}
budget: {size: {max: 0.5, of: expected}}
"""
RUNS = "raise RuntimeError('it was run')\n"


def missing(path: Path, *overrides: str) -> dict[str, str]:
    return {row.name: row.found for row in needs(path, overrides) if row.state == "missing"}


def test_a_config_that_has_all_it_needs(project: Make) -> None:
    path = project(WHOLE, **{"mine.py": RUNS, "expected.json": ""})
    save_file(STATE, path.parent / "net.safetensors")
    (path.parent / "data.py").write_text(RUNS)
    assert missing(path) == {}
    done = shrink("doctor", path.name, "--json", cwd=path.parent)
    assert done.returncode == 0, done.stdout
    named = [row["name"] for row in json.loads(done.stdout)["findings"] if row["concern"] == "config"]
    assert named == [
        "task: data.py", "model: models.py:TinyNet", "stages: distill.logits", "stages: models.py:TinyNet",
        "stages: mine.py", "stages: export.onnx", "model weights: net.safetensors", "budget: expected.json",
    ]  # fmt: skip


def test_everything_that_a_config_misses_is_told_at_once(project: Make) -> None:
    path = project(WHOLE.replace("export.onnx", "export.onx"), **{"mine.py": "import a_library_of_ours.part\n"})
    (path.parent / "models.py").rename(path.parent / "model.py")
    found = missing(path)
    assert list(found) == [
        "model: models.py:TinyNet", "stages: models.py:TinyNet", "stages: mine.py", "stages: export.onx",
        "model weights: net.safetensors", "budget: expected.json",
    ]  # fmt: skip
    assert "did you mean" in found["model: models.py:TinyNet"]
    assert found["stages: mine.py"] == "it imports `a_library_of_ours`, which is not installed"
    assert "did you mean `export.onnx`" in found["stages: export.onx"]
    done = shrink("doctor", path.name, cwd=path.parent)
    assert done.returncode == 2
    assert "6 missing" in done.stdout
    assert "Traceback" not in done.stderr


def test_all_strategies_are_looked_at_and_each_thing_is_told_once(project: Make) -> None:
    path = project("""
        task: {use: data.py}
        model: {use: models.py:TinyNet}
        strategies:
          one: [{use: none.py}, {use: export.onnx}]
          two: [{use: export.onnx}, {use: quantize.none}]
    """)
    assert set(missing(path)) == {"stages: none.py", "stages: quantize.none"}
    names = [row.name for row in needs(path)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("text", "told"), [
    ("task: [", "this is not YAML"), ("task: {use: data.py}\nstages: [{use: export.onnx}]", "`model` is missing"),
])  # fmt: skip
def test_a_config_that_cannot_be_read_is_missing_itself(project: Make, text: str, told: str) -> None:
    path = project(text)
    (found,) = missing(path).values()
    assert told in found
    assert shrink("doctor", path.name, cwd=path.parent).returncode == 2
    assert "there is no file" in missing(path.with_name("none.yaml"))[str(path.with_name("none.yaml"))]


def test_data_are_looked_for_beside_the_config(project: Make, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = project("task: {use: data.py, path: rows}\nmodel: {use: models.py:TinyNet}\nstages: [{use: export.onnx}]\n")
    assert set(missing(path)) == {"task.path: rows"}
    (path.parent / "rows").mkdir()
    assert missing(path) == {}
    assert set(missing(path, "task.path=others")) == {"task.path: others"}


def test_an_onnx_file_and_a_gpu_are_needed_where_they_are_named(project: Make, monkeypatch: Patch) -> None:
    path = project("task: {use: data.py}\nmodel: {onnx: net.onnx}\nstages: [{use: quantize.static}]\ndevice: cuda\n")
    monkeypatch.setattr("pipeline.cli.doctor.machine.usable", lambda: False)
    assert set(missing(path)) == {"model onnx: net.onnx", "device: cuda"}
    classifier(path.parent / "net.onnx")
    monkeypatch.setattr("pipeline.cli.doctor.machine.usable", lambda: True)
    assert missing(path) == {}


CHAIN = "task: {use: data.py}\nmodel: {use: models.py:TinyNet, weights: %s}\nstages: [{use: export.onnx}]\n"


def weights_row(path: Path) -> Finding:
    (row,) = [row for row in needs(path) if "weights" in row.name or "onnx:" in row.name]
    return row


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


@pytest.mark.parametrize(("name", "wanted"), [
    ("net.safetensors", "it is damaged, or no file of safetensors"),
    ("net.pth", "it is damaged, or no file that torch.save wrote"),
])  # fmt: skip
def test_weights_that_a_run_would_refuse_as_damaged_are_missing(project: Make, name: str, wanted: str) -> None:
    path = project(CHAIN % name)
    file = path.parent / name
    save_file(STATE, file) if name.endswith("safetensors") else torch.save({"state_dict": STATE}, file)
    assert weights_row(path) == Finding("config", f"model weights: {name}", "ok", "here, with a state dict")
    cut(file)
    row = weights_row(path)
    assert (row.state, row.fix) == ("missing", "Get the file again, or save it again")
    assert row.found.startswith(wanted)
    done = shrink("doctor", path.name, cwd=path.parent)
    assert done.returncode == 2
    assert "1 missing" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_folder_and_an_index_are_opened_too(project: Make) -> None:
    path = project(CHAIN % "hub")
    folder = path.parent / "hub"
    folder.mkdir()
    assert "there are no weights in this folder; expected one of model.safetensors" in weights_row(path).found
    index = {"weight_map": {"weight": "one.safetensors", "bias": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"weight": STATE["weight"]}, folder / "one.safetensors")
    assert weights_row(path).found.startswith("two.safetensors: there is no such file")
    save_file({"bias": STATE["bias"]}, folder / "two.safetensors")
    assert weights_row(path).state == "ok"
    save_file({"other": STATE["bias"]}, folder / "two.safetensors")
    assert "names tensors that none of its files has: bias" in weights_row(path).found


def test_a_pickle_is_told_and_not_run(project: Make) -> None:
    path = project(CHAIN % "net.pt")
    torch.save(nn.Linear(2, 3), path.parent / "net.pt")
    row = weights_row(path)
    assert (row.state, row.found) == ("missing", "it holds more than tensors, or is damaged")
    assert "give its sha256 in `model:`, and --allow-unsafe-load" in row.fix
    digest = hash_of(path.parent / "net.pt")
    path.write_text(CHAIN % f"net.pt, sha256: {digest}")
    row = weights_row(path)
    assert (row.state, row.found) == ("warning", "it holds more than tensors, or is damaged; its sha256 is right")
    assert "run with --allow-unsafe-load" in row.fix
    torch.save([1, 2], path.parent / "net.pt")
    assert weights_row(path).found == f"its sha256 is {hash_of(path.parent / 'net.pt')}; expected {digest}"
    path.write_text(CHAIN % "net.pt")
    assert weights_row(path).found == "it holds a list; expected a state dict, as module.state_dict() gives"


def hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_an_onnx_file_is_checked(project: Make) -> None:
    chain = "task: {use: data.py}\nmodel: {onnx: %s}\nstages: [{use: quantize.static}]\n"
    path = project(chain % "net.onnx")
    file = path.parent / "net.onnx"
    classifier(file)
    assert weights_row(path).found == "here; it takes `input` float32 (batch, 1, 8, 8)"
    path.write_text(chain % f"net.onnx, sha256: {'0' * 63}a")
    assert weights_row(path).found == f"its sha256 is {hash_of(file)}; expected {'0' * 63}a"
    path.write_text(chain % "{file: net.onnx, memory: 100 B}")
    assert "expected at most 100" in weights_row(path).found
    path.write_text(chain % "net.onnx")
    cut(file)
    assert weights_row(path).found.startswith("it is damaged or no ONNX file: ")


def test_weights_of_a_teacher_are_opened_and_what_a_stage_of_the_users_calls_so_is_not(project: Make) -> None:
    teacher = "{use: models.py:TinyNet, weights: net.pt}"
    stage = f"{{use: distill.logits, student: {{use: models.py:TinyNet}}, teachers: [{teacher}]}}"
    chain = f"{CHAIN.partition(', weights')[0]}}}\nstages: [{stage}, {{use: mine.py, weights: mine.npz}}]\n"
    path = project(chain, **{"mine.py": RUNS, "net.pt": "no weights", "mine.npz": "of another kind"})
    assert set(missing(path)) == {"stages weights: net.pt"}


def test_a_config_without_weights_needs_no_torch(project: Make) -> None:
    path = project("task: {use: data.py}\nmodel: {onnx: net.onnx}\nstages: [{use: quantize.static}]\n")
    classifier(path.parent / "net.onnx")
    code = (
        "import sys; from pathlib import Path; from pipeline.cli.doctor.needs import needs; "
        "print([row.state for row in needs(Path(sys.argv[1]))], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "['ok', 'ok', 'ok'] False", done.stderr


def test_imports_are_read_at_any_depth_but_those_that_are_tried(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "from typing import TYPE_CHECKING\nimport os.path, torch\nfrom .helpers import x\nfrom . import main\n"
        "if TYPE_CHECKING:\n    import only_for_types\n"
        "try:\n    import perhaps\nexcept ImportError:\n    perhaps = None\n"
        "def f():\n    from needed.later import y\n"
    )
    (tmp_path / "helpers.py").write_text("import needed_by_helpers\nfrom .main import f\n")
    assert missing_imports(tmp_path / "main.py") == {"needed", "needed_by_helpers"}
    (tmp_path / "broken.py").write_text("def (")
    assert missing_imports(tmp_path / "broken.py") == set()


@pytest.mark.parametrize(("use", "package"), [
    ("none.py", ""), ("no_such_module:f", ""), ("quantize.none", "stages"), ("pipeline.none:f", ""),
])  # fmt: skip
def test_what_is_not_there_is_absent(tmp_path: Path, use: str, package: str) -> None:
    with pytest.raises(Absent, match="there is no"):
        source_of(use, tmp_path, package)


def test_where_code_lies(tmp_path: Path) -> None:
    assert source_of("torch.nn:Linear", tmp_path) is None
    assert source_of("quantize.static", tmp_path, "stages").name == "static.py"  # type: ignore[union-attr]
    assert source_of("pipeline.task:classification", tmp_path).name == "task.py"  # type: ignore[union-attr]


def test_audio_needs_what_reads_it(project: Make, monkeypatch: Patch) -> None:
    task = "task: {use: data.py, kind: audio_classification}\n"
    path = project(task + "model: {use: models.py:TinyNet}\nstages: [{use: export.onnx}]\n")
    monkeypatch.setattr("pipeline.cli.doctor.needs.AUDIO", "no_such_reader")
    assert set(missing(path)) == {"task.kind"}


HUB = """
task: {use: huggingface, data: texts, tokenizer: texts}
model: {use: huggingface.timm, name: resnet18}
stages: [{use: export.onnx}]
"""


def test_what_is_built_in_is_there_and_is_not_taken_for_one_of_the_hub(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "chain.yaml").write_text(HUB)
    (tmp_path / "texts").mkdir()
    found = {row.name: row.state for row in needs(tmp_path / "chain.yaml")}
    assert found.pop("model.use", "ok") == ("ok" if importlib.util.find_spec("timm") else "missing")
    assert set(found.values()) == {"ok"}
    assert {"task: huggingface", "model: huggingface.timm", "task.data: texts"} <= set(found)
    (tmp_path / "chain.yaml").write_text(HUB.replace("huggingface.timm", "huggingface.nothing"))
    assert "model: huggingface.nothing" in missing(tmp_path / "chain.yaml")
