"""Several inputs and outputs, and batches of any length, through whole chains."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from pipeline.build.build import build
from pipeline.build.source import load_config
from pipeline.records.record import Record
from pipeline.runner import run
from tests.users import chain_of

SEVERAL = {
    "data.py": """
import torch
from pipeline.task import Split, classification

class Pairs:
    def __init__(self, size, seed):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(size, 1, 8, 8, generator=generator)
        self.rows = torch.randn(size, 6, generator=generator)
        self.labels = (self.rows[:, 0] + self.images.mean((1, 2, 3)) > 0.5).long()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"image": self.images[i], "row": self.rows[i]}, self.labels[i]

def task(output="logits"):
    splits = [Split(Pairs(size, seed)) for seed, size in enumerate((256, 64, 128))]
    return classification(*splits, output=output)
""",
    "models.py": """
import torch
from torch import nn

class Both(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.row = nn.Linear(6, width)
        self.aside = nn.Linear(width, 3)
        self.head = nn.Linear(width, 2)

    def forward(self, image, row):
        seen = torch.relu(self.inner(torch.relu(self.conv(image)))).mean((2, 3)) + torch.relu(self.row(row))
        # None and the pair are no outputs of the file; `aside` comes before the one that is scored.
        states = {"states": (seen, seen), "none": None}
        return {"aside": self.aside(seen), **states, "logits": self.head(seen), "seen": seen}
""",
}
WHOLE = """
task: {use: data.py}
model: {use: models.py:Both}
baseline:
  - {use: train.supervised, epochs: 8, learning_rate: 0.02}
stages:
  - {use: distill.logits, student: {use: models.py:Both, width: 8}, epochs: 8, learning_rate: 0.02}
  - {use: prune.channels, channels: 0.6, round_to: 1, recovery: {epochs: 2, learning_rate: 0.01}}
  - {use: export.onnx}
  - {use: quantize.static}
  - {use: benchmark.latency, rounds: 1, iterations: 5, warmup: 1}
"""


def predictions(record: Record, position: int) -> dict[str, torch.Tensor]:
    return load_file(Path(record.folder) / record.stages[position].predictions)


@pytest.fixture
def several(project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def make(chain: str = WHOLE, **files: str) -> Path:
        path = project(chain, **{**SEVERAL, **files})
        monkeypatch.chdir(path.parent)
        return path

    return make


def test_the_named_output_of_several_is_trained_and_scored_through_a_whole_chain(several: Callable[..., Path]) -> None:
    record = run(several())
    assert [stage.name for stage in record.stages][-1] == "benchmark.latency"
    assert record.baseline.score > 0.8  # of the second output: the first one has three classes and learns nothing
    assert record.stages[0].score > 0.8
    assert all(stage.agreement is not None and stage.agreement > 0.6 for stage in record.stages)
    assert predictions(record, 3)["predictions"].shape == (128, 2)
    assert record.interface.scored == "logits"
    assert [port.name for port in record.interface.inputs] == ["image", "row"]
    assert [port.name for port in record.interface.outputs] == ["aside", "logits", "seen"]


def test_an_output_that_the_model_lacks_is_refused_with_those_that_it_gives(several: Callable[..., Path]) -> None:
    message = r"task, train examples .*: the model gives no output `logit`; expected `output` to "
    with pytest.raises(Exception, match=message + "be one of those that it gives: aside, logits, seen"):
        run(several(), overrides=["task.output=logit"])


@pytest.mark.parametrize(("output", "told"), [("", True), ("aside", False), ("logits", False)])
def test_an_output_that_nobody_named_is_told(several: Callable[..., Path], output: str, told: bool) -> None:
    found = build(*load_config(several(), [f"task.output={output or 'null'}"])).warnings
    said = "task: of the outputs aside, logits, seen the first one, `aside`, is trained on and scored; set `output`"
    assert (said in found) is told


def test_a_teacher_that_does_not_give_the_output_is_refused(several: Callable[..., Path]) -> None:
    other = (
        SEVERAL["models.py"]
        + """
class Other(Both):
    def forward(self, image, row):
        return {"x": super().forward(image, row)["logits"]}
"""
    )
    chain = WHOLE.replace("{use: models.py:Both, width: 8}", "{use: models.py:Other, width: 8}")
    with pytest.raises(Exception, match=r"stages\[0\] \(distill.logits\).*no output `logits`.* that it gives: x"):
        run(several(chain, **{"models.py": other}))


TEXT = {
    "data.py": """
import torch
from pipeline.task import Split, classification

TOKENS = {"input_ids": {1: "tokens"}, "attention_mask": {1: "tokens"}}

class Texts:
    def __init__(self, size, seed):
        generator = torch.Generator().manual_seed(seed)
        lengths = [6 + 10 * i // size for i in range(size)]  # so that batches of another length follow each other
        self.rows = [torch.randint(2, 30, (length,), generator=generator) for length in lengths]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {"input_ids": self.rows[i]}, int(self.rows[i][0] > 15)

def collate(rows):
    ids = torch.nn.utils.rnn.pad_sequence([inputs["input_ids"] for inputs, _ in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}, torch.tensor([label for _, label in rows])

def accuracy(predictions, targets):
    return float((predictions.argmax(-1) == targets).double().mean())

def task(named=True):
    splits = [Split(Texts(size, seed), collate) for seed, size in enumerate((256, 64, 300))]
    return classification(*splits, axes=TOKENS if named else {}, output="logits", metrics={"accuracy": accuracy})
""",
    "models.py": """
from transformers import BertConfig, BertForSequenceClassification

def bert(layers=2):
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": layers}
    config = BertConfig(vocab_size=30, **sizes, max_position_embeddings=64, output_hidden_states=True)
    config._attn_implementation = "eager"
    return BertForSequenceClassification(config)
""",
}
ENCODER = chain_of(
    "distill.logits, student: {shrink_of: teacher, layers: 1}, epochs: 1, learning_rate: 0.001",
    "export.onnx",
    "quantize.static, calibration: percentile, percentile: 99.99, batch_size: 4",
    model="use: models.py:bert",
    baseline="train.supervised, epochs: 6, learning_rate: 0.01",
)


@pytest.mark.slow
def test_an_encoder_with_padding_to_each_batch_goes_through_a_chain(several: Callable[..., Path]) -> None:
    record = run(several(ENCODER, **TEXT))
    assert record.baseline.score > 0.75
    int8 = record.stages[-1]
    assert int8.agreement > 0.8
    assert int8.metrics["accuracy"].value == pytest.approx(int8.score)
    assert int8.metrics_drop["accuracy"].value == pytest.approx(record.baseline.score - int8.score)
    assert int8.metrics_retention["accuracy"].value == pytest.approx(int8.score / record.baseline.score)
    session = onnxruntime.InferenceSession(Path(record.folder) / int8.file)
    for length in (5, 60):
        ids = np.full((3, length), 7, dtype=np.int64)
        assert session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0].shape == (3, 2)


def test_axes_that_are_not_named_are_refused_before_any_work(several: Callable[..., Path]) -> None:
    message = (
        r"axis 1 of `input_ids` is 6 long in a batch of short examples and 15 in one of long examples; expected one "
        r"length.*Give the Task axes=\{'input_ids': \{1: 'length'\}, 'attention_mask': \{1: 'length'\}\}"
    )
    with pytest.raises(Exception, match=message):
        run(several(ENCODER, **TEXT), overrides=["task.named=false"])
