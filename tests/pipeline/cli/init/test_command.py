"""`shrink init`: what it writes for every kind of model and target fits, is planned, and runs."""

import hashlib
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from pipeline.base.use import Reference, import_file
from pipeline.build.build import Built, build
from pipeline.build.source import load_config
from pipeline.cli.init.architecture import kind_of, kind_of_operators
from pipeline.cli.init.command import named
from pipeline.cli.init.write import starting_config
from pipeline.deploy import deploy
from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from tests import conftest
from tests.aliases import Make
from tests.forked import shrink
from tests.graphs import graph, node

ROOT = Path(__file__).parents[4]

MODELS = f"""{conftest.MODELS.replace("width: int = 8", "width: int = 16")}
from torch.nn import functional as F
def fixed():
    return TinyNet()

def dense(hidden=32):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 4))

def single():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

def three():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def needy(width):
    return TinyNet(width)

class Rows(nn.Module):
    '''Reads the rows of an image one after the other.'''
    def __init__(self, hidden=16, cell="LSTM"):
        super().__init__()
        self.cell = getattr(nn, cell)(8, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 4)

    def forward(self, x):
        return self.head(self.cell(x.squeeze(1))[0][:, -1])

class Patches(nn.Module):
    '''Attends to the rows of an image.'''
    def __init__(self, layers=4, dim=16):
        super().__init__()
        self.embed = nn.Linear(8, dim)
        layer = nn.TransformerEncoderLayer(dim, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(dim, 4)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x.squeeze(1))).mean(1))
"""
REGRESSION = """
from .data import quadrants
from pipeline.task import Split, Task
from torch.nn import functional as F

def near(outputs, targets):
    return F.mse_loss(outputs["output"][:, 0], targets.float())

def score(predictions, targets):
    return -(predictions[:, 0] - targets) ** 2

def task():
    parts = [Split(quadrants(64, seed)) for seed in range(3)]
    return Task(*parts, loss=near, score=score)
"""


@pytest.fixture
def home(project: Make) -> Path:
    """A user's folder with models of all kinds."""
    return project(**{"models.py": MODELS, "regression.py": REGRESSION}).parent


def written(home: Path, model: Any, target: Any = "cpu", task: str = "data.py", name: str = "mine.yaml") -> str:
    text = starting_config(model if isinstance(model, dict) else {"use": model}, {"use": task}, target, home, name)
    (home / name).write_text(text)
    return text


def built(home: Path, name: str = "mine.yaml") -> Built:
    """What `shrink plan` builds and checks of it."""
    config, source = load_config(home / name)
    return build(config, source)


def names(text: str) -> list[str]:
    return [stage["use"] for stage in yaml.safe_load(text)["stages"]]


PRUNED = ["prune.channels", "export.onnx", "quantize.static", "benchmark.latency"]
DISTILLED = ["distill.logits", "export.onnx"]
FEW_BITS = ["quantize.aware", "export.onnx", "quantize.pack"]
BY_KIND = [
    ("models.py:TinyNet", "data.py", "cpu", PRUNED),
    ("models.py:TinyNet", "data.py", "gpu", PRUNED[:2]),
    ("models.py:TinyNet", "data.py", "edge", ["distill.logits", "prune.channels", *FEW_BITS]),
    (
        "models.py:fixed",
        "data.py",
        "edge",
        ["prune.channels", *FEW_BITS],
    ),  # it takes no width, and has no list of layers
    ("models.py:dense", "data.py", "cpu", PRUNED),
    ("models.py:single", "data.py", "cpu", ["export.onnx", "benchmark.latency"]),
    ("models.py:Rows", "data.py", "cpu", ["export.onnx", "quantize.dynamic", "benchmark.latency"]),
    ("models.py:Rows", "data.py", "edge", [*DISTILLED, "quantize.dynamic"]),
    ("models.py:Patches", "data.py", "cpu", [*DISTILLED, "quantize.static", "benchmark.latency"]),
    ("models.py:Patches", "data.py", "gpu", DISTILLED),
    ("models.py:Patches", "data.py", "edge", ["distill.logits", *FEW_BITS]),
    ("models.py:single", "data.py", "edge", ["export.onnx"]),
    ("models.py:TinyNet", "regression.py", "cpu", PRUNED),
    ("models.py:TinyNet", "regression.py", "edge", ["prune.channels", *FEW_BITS]),
    ("models.py:Patches", "regression.py", "gpu", ["export.onnx"]),
]


@pytest.mark.parametrize(("model", "task", "target", "stages"), BY_KIND)
def test_each_model_has_chains_for_targets(home: Path, model: str, task: str, target: str, stages: list[str]) -> None:
    text = written(home, model, target, task)
    assert names(text) == stages
    found = built(home)
    assert [place.partition("(")[2][:-1] for place, _ in found.baseline] == ["train.supervised"]
    config = yaml.safe_load(text)
    if task == "regression.py":
        assert "retention" not in config["budget"]  # scores are below zero
    if "prune.channels" in stages:
        pruning = config["stages"][stages.index("prune.channels")]
        assert pruning["recovery"].get("teacher") == ("labels" if task == "regression.py" else None)
    if target == "gpu":
        assert "no stage for fp16 yet" in text
    assert ("latency" in config["budget"]) is ("benchmark.latency" in stages)


def test_the_header_says_what_the_stages_do(home: Path) -> None:
    int8, few = ", and becomes int8", ", and its weights become integers of 4 bits"
    for model, target, told in [
        ("models.py:dense", "gpu", "a network of dense layers loses channels"),
        (
            "models.py:dense",
            "edge",
            "a smaller student learns what a network of dense layers predicts, loses channels" + few,
        ),
        ("models.py:Patches", "edge", "a smaller student learns what a transformer predicts" + few),
        ("models.py:fixed", "edge", "a convolutional network loses channels" + few),
        ("models.py:TinyNet", "gpu", "a convolutional network loses channels"),
        ("models.py:Patches", "gpu", "a smaller student learns what a transformer predicts"),
        ("models.py:Rows", "cpu", "a recurrent network keeps its structure" + int8),
        ("models.py:single", "cpu", "a network keeps its structure"),
    ]:
        assert f"\n# {told}.\n" in written(home, model, target)
    onnx_file(home / "net.onnx")
    assert "\n# an ONNX file keeps its structure, and becomes int8.\n" in written(home, {"onnx": "net.onnx"})


def test_an_lstm_becomes_int8_and_a_gru_does_not(home: Path) -> None:
    lstm, gru = (yaml.safe_load(written(home, {"use": "models.py:Rows", "cell": cell})) for cell in ("LSTM", "GRU"))
    assert lstm["stages"][1]["use"] == "quantize.dynamic"
    assert "LSTM" in lstm["stages"][1]["operators"]
    assert [stage["use"] for stage in gru["stages"]] == ["export.onnx", "benchmark.latency"]
    assert "size" not in gru["budget"]


def test_an_onnx_file_with_a_gru_is_promised_no_int8(home: Path) -> None:
    rows = import_file(home / "models.py").Rows(cell="GRU").eval()
    deploy(TorchModel(rows, {"input": torch.rand(2, 1, 8, 8)}, Reference(use="models.py:Rows")), home / "net.onnx")
    assert names(written(home, {"onnx": "net.onnx"})) == ["benchmark.latency"]


def test_students_are_the_teacher_made_smaller(home: Path) -> None:
    narrow = yaml.safe_load(written(home, "models.py:TinyNet", "edge"))["stages"][0]["student"]
    assert narrow == {"shrink_of": "teacher", "width": 8}
    short = yaml.safe_load(written(home, "models.py:Patches"))["stages"][0]["student"]
    assert short == {"shrink_of": "teacher", "layers": 2}


def test_every_setting_has_a_comment(home: Path) -> None:
    for model, task, target, _ in BY_KIND:
        lines = written(home, model, target, task).splitlines()
        for above, line in pairwise(lines):
            if re.search(r"^ +.*\w:", line) and not re.match(r" *- use: train", line):
                assert "#" in line or above.strip().startswith("#"), line
        assert all(len(line) <= 200 for line in lines)


def test_the_budget_can_be_missed(home: Path) -> None:
    budget = yaml.safe_load(written(home, {"use": "models.py:TinyNet", "width": 256}))["budget"]
    assert budget["size"] == {"max": 0.2, "of": "baseline"}  # half of the channels, and int8
    assert 0 < budget["latency"]["max"] < 1
    assert budget["retention"] == {"min": 0.9}  # what 128 test examples can decide
    edge = yaml.safe_load(written(home, {"use": "models.py:TinyNet", "width": 256}, "edge"))["budget"]
    assert edge["size"] == {"max": "120 kB"}  # of 2.4 MB: an eighth of the weights, in 4 bits, and room


def test_most_weights_have_few_bits(home: Path) -> None:
    for model, bits in (("models.py:TinyNet", 8), ("models.py:dense", 4)):  # all of the latter are in first and last
        stages = {stage["use"]: stage for stage in yaml.safe_load(written(home, model, "edge"))["stages"]}
        assert (stages["quantize.aware"]["bits"], stages["quantize.aware"]["first_last"]) == (4, bits)


def test_channels_of_a_student_are_cut_to_multiples_that_it_has(home: Path) -> None:
    wide = {"use": "models.py:TinyNet", "width": 32}
    alone, after = (yaml.safe_load(written(home, wide, target))["stages"] for target in ("cpu", "edge"))
    assert (alone[0]["round_to"], after[1]["round_to"]) == (8, 4)


def test_a_trained_model_needs_no_baseline_and_its_weights_are_tried(home: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    save_file(module.state_dict(), home / "net.safetensors")
    source = {"use": "models.py:dense", "weights": "net.safetensors"}
    config = yaml.safe_load(written(home, source))
    assert "baseline" not in config
    assert config["model"] == source
    with pytest.raises(ConfigError, match=r"net.safetensors"):
        written(home, {"use": "models.py:TinyNet", "weights": "net.safetensors"})


@pytest.mark.parametrize(("model", "task", "told"), [
    ("models.py:TinyNett", "data.py", "did you mean `TinyNet`"),
    ("model.py:TinyNet", "data.py", "did you mean `models.py`"),
    ("models.py:needy", "data.py", "width"),
    ("models.py:three", "data.py", "train example 1"),  # labels from 0 to 3 beside three outputs
    ("models.py:TinyNet", "data.py:tusk", "did you mean `task`"),
    ("models.py:TinyNet", "models.py:dense", "expected a pipeline.task.Task"),
])  # fmt: skip
def test_what_does_not_fit_is_told(home: Path, model: str, task: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        written(home, model, task=task)


def onnx_file(path: Path, quantized: bool = False) -> None:
    """A convolution and a head for the images of the task, or the same with a quantized input."""
    draw, shapes = np.random.default_rng(0), {"kernel": (8, 1, 3, 3), "w": (4, 512), "b": (4,)}
    weights = {name: draw.normal(size=shape) for name, shape in shapes.items()}
    there, back = ("QuantizeLinear", "input", "q"), ("DequantizeLinear", "q", "x")
    first = [node(kind, [name, "scale", "zero"], [result]) for kind, name, result in (there, back)]
    nodes = [
        *(first if quantized else [node("Identity", ["input"], ["x"])]),
        node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Flatten", ["r"], ["f"]),
        node("Gemm", ["f", "w", "b"], ["output"], transB=1),
    ]
    weights |= {"scale": np.float32(0.01), "zero": np.uint8(0)} if quantized else {}
    onnx.save(graph(nodes, {"input": ["batch", 1, 8, 8]}, {"output": ["batch", 4]}, weights), path)


def test_an_onnx_file_starts_at_quantization(home: Path) -> None:
    onnx_file(home / "net.onnx")
    text = written(home, {"onnx": "net.onnx"})
    assert names(text) == ["quantize.static", "benchmark.latency"]
    assert "baseline" not in yaml.safe_load(text)
    assert built(home).baseline == ()
    with pytest.raises(ConfigError, match="no stage makes an ONNX file fit for the target gpu"):
        written(home, {"onnx": "net.onnx"}, "gpu")
    onnx_file(home / "small.onnx", quantized=True)
    assert names(written(home, {"onnx": "small.onnx"})) == ["benchmark.latency"]
    with pytest.raises(ConfigError, match="an ONNX file with quantized nodes"):
        written(home, {"onnx": "small.onnx"}, "edge")


@pytest.mark.parametrize(("folder", "model", "task", "target", "stages"), [
    ("text", "encoder", "data.py", "cpu", [*DISTILLED, "quantize.dynamic", "benchmark.latency"]),
    pytest.param("translation", "translator", "data.py:task", "edge", ["distill.sequence"], marks=pytest.mark.optimum),
])  # fmt: skip
def test_text_loses_layers(tmp_path: Path, folder: str, model: str, task: str, target: str, stages: list[str]) -> None:
    for file in (ROOT / "configs" / folder).glob("*.py"):
        (tmp_path / file.name).symlink_to(file)
    text = written(tmp_path, f"models.py:{model}", target, task)
    assert names(text)[: len(stages)] == stages
    assert any(name.startswith("export.") for name in names(text))
    assert "layers" in yaml.safe_load(text)["stages"][0]["student"]
    assert len(built(tmp_path).stages) == len(names(text))


def test_from_the_command_line_to_a_plan(home: Path) -> None:
    with (home / "data.py").open("a") as file:
        file.write("\nprint('a file that prints')\n")
    done = shrink("init", "--model", "models.py:TinyNet", "--task", "data.py:task", "--target", "cpu", cwd=home)
    assert done.returncode == 0, done.stderr
    assert "a file that prints" in done.stderr
    (home / "my.yaml").write_text(done.stdout)
    assert names(done.stdout) == PRUNED
    planned = shrink("plan", "my.yaml", cwd=home)
    assert planned.returncode == 0, planned.stderr


def test_a_file_is_never_overwritten_and_paths_go_from_where_it_lies(home: Path) -> None:
    (home / "sub").mkdir()
    torch.save({"state_dict": nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).state_dict()}, home / "net.pt")
    words = ["init", "--model", "models.py:single", "--task", "data.py", "--weights", "net.pt", "--out", "sub/it.yaml"]
    done = shrink(*words, cwd=home)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    before = (home / "sub" / "it.yaml").read_bytes()
    found = built(home / "sub", "it.yaml")
    assert found.config.model.use == "../models.py:single"
    assert str(found.config.model.weights) == "../net.pt"
    again = shrink(*words, cwd=home)
    assert again.returncode == 2
    assert "there is such a file already" in again.stderr
    assert (home / "sub" / "it.yaml").read_bytes() == before


def test_a_whole_pickled_module_is_taken_with_its_sha256_and_the_flag(home: Path) -> None:
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), home / "net.pt")
    digest = hashlib.sha256((home / "net.pt").read_bytes()).hexdigest()
    model = f"{{use: 'models.py:single', weights: net.pt, sha256: '{digest}'}}"
    words = ["init", "--model", model, "--task", "data.py"]
    refused, done = shrink(*words, cwd=home), shrink(*words, "--allow-unsafe-load", cwd=home)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["model"]["sha256"] == digest


def test_a_mapping_gives_arguments_and_a_bad_one_is_told(home: Path) -> None:
    here = Path()
    assert named("{use: 'models.py:TinyNet', width: 8}", here) == {"use": "models.py:TinyNet", "width": 8}
    assert named("digits", here, Path("net.pt")) == {"use": "digits", "weights": "net.pt"}
    assert named("nets/net.onnx", Path("nets")) == {"onnx": "net.onnx"}
    done = shrink("init", "--model", "{use: [", "--task", "data.py", cwd=home)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not YAML" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("model", "target"), [
    ("TinyNet", "cpu"), ("TinyNet", "edge"), ("dense", "cpu"), ("dense", "edge"), ("Patches", "cpu"),
    ("Patches", "edge"), ("Rows", "edge"),
])  # fmt: skip
def test_what_is_written_runs_to_its_end(home: Path, model: str, target: str) -> None:
    out = home / "mine.yaml"
    words = ["--model", f"models.py:{model}", "--task", "data.py", "--target", target, "--out", out.name]
    assert shrink("init", *words, cwd=home).returncode == 0
    config = yaml.safe_load(out.read_text())
    few = ["baseline.0.epochs=2"]
    few += [f"stages.{i}.epochs=2" for i, stage in enumerate(config["stages"]) if "epochs" in stage]
    few += [f"stages.{i}.recovery.epochs=2" for i, stage in enumerate(config["stages"]) if "recovery" in stage]
    done = shrink("run", out.name, *(word for value in few for word in ("--set", value)), cwd=home)
    assert done.returncode in (0, 1, 5), done.stderr


class Attention(nn.Module):
    """What some networks for images call attention: weights for the channels, by convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)


@pytest.mark.parametrize(("module", "kind"), [
    (nn.Sequential(nn.Conv2d(1, 8, 3), Attention(), nn.Linear(2, 2)), "convolutional"),
    (nn.TransformerEncoderLayer(8, 2), "transformer"),
    (nn.Sequential(nn.Conv1d(1, 2, 3), nn.GRU(2, 2)), "recurrent"),
    (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "feed-forward"),
    (nn.Linear(2, 2), "other"),
])  # fmt: skip
def test_the_kind_is_told_by_the_parts(module: nn.Module, kind: str) -> None:
    assert kind_of(module) == kind
    assert kind_of(module, ["input_ids", "decoder_input_ids"]) == "sequence"


@pytest.mark.parametrize(("operators", "kind"), [
    (["Conv", "Relu", "Gemm"], "convolutional"), (["MatMul"] * 6 + ["Softmax"], "transformer"), (["Gemm"], "other"),
    (["LSTM", "Gemm"], "recurrent"), (["Gemm", "Relu", "Gemm", "Softmax"], "feed-forward"),
])  # fmt: skip
def test_the_kind_of_a_graph_is_told_by_its_operators(operators: list[str], kind: str) -> None:
    assert kind_of_operators(operators) == kind
