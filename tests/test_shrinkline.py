"""The Python face: objects in place of names, with the chain, the store and the record that a pipeline file has."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import shrinkline
from pipeline.base.use import LENT
from pipeline.errors import ConfigError
from pipeline.records.folder import load_run, verified
from pipeline.task import Split, classification
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


def compressed(model: Any, data: Any, at: Path, **options: Any) -> Any:
    return shrinkline.compress(
        model, **{"runs": at / "runs", "track": False, "stages": ["export.onnx"], **data, **options}
    )


def planned(model: Any, data: Any, at: Path, **options: Any) -> Any:
    """What is refused before work, or the config that it comes to."""
    from pipeline import runner
    from pipeline.build.live.call import arranged

    splits = {name: data.get(name) for name in ("train", "validation", "test")}
    others = {name: value for name, value in data.items() if name not in splits}
    config, settings = arranged(model, splits, {"stages": ["export.onnx"], "runs": at, **others, **options}, runner.run)
    with runner.planned(config, **settings) as (built, _):
        return built


def test_importing_it_takes_no_time() -> None:
    code = "import sys, time; t = time.process_time(); import shrinkline; d = time.process_time() - t; "
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


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_run_once_and_its_code_is_in_the_keys(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == ["begins", *("made", "onnxruntime", "cached", "onnxruntime", "made", "onnxruntime")]


def test_what_no_key_covers_is_a_warning_of_the_run(data: dict[str, Pair], net: nn.Module, tmp_path: Path) -> None:
    loss = nn.CrossEntropyLoss()
    plain = planned(net, data, tmp_path, loss=loss).warnings
    loss.limits = torch.finfo(torch.float32)  # type: ignore[assignment]
    (warning,) = set(planned(net, data, tmp_path, loss=loss).warnings) - set(plain)
    assert warning.startswith("the task holds what is in no key, of torch.finfo: when that changes")


class Rows(Dataset[Any]):
    """Examples of any structure."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any], pair: Pair) -> None:
        self.make, self.pair = make, pair

    def __len__(self) -> int:
        return len(self.pair[0])

    def __getitem__(self, index: int) -> Any:
        return self.make(self.pair[0][index], self.pair[1][index])


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


def loaded(pair: Pair, sampler: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*pair), batch_size=8, sampler=sampler)


WRONG: dict[str, tuple[Callable[[dict[str, Pair]], dict[str, Any]], str]] = {
    "no test data": (lambda d: {"test": None}, r"test: there are no data; expected a DataLoader.* Give `test=`"),
    "no targets": (lambda d: {"train": d["train"][0]}, r"train: it is a tensor of shape .* \(inputs, targets\)"),
    "other lengths": (lambda d: {"test": (d["test"][0], d["test"][1][:5])}, r"test: there are 128 in input, 5 in the"),
    "a stream": (lambda d: {"train": DataLoader(Stream())}, "train: its dataset is an IterableDataset"),
    "weights draw": (
        lambda d: {"train": loaded(d["train"], WeightedRandomSampler([1.0] * 256, 256))},
        r"train: its sampler, a WeightedRandomSampler, .* expected each example once.* Give the dataset itself",
    ),
    "a sampler takes one twice": (
        lambda d: {"train": loaded(d["train"], SubsetRandomSampler([0, 0, 0, *range(1, 10)]))},
        r"train: its sampler, a SubsetRandomSampler, takes examples twice, 2 times; expected each example once",
    ),
    "a part takes one twice": (
        lambda d: {"test": Subset(TensorDataset(*d["test"]), [0, 1, -128, 2])},
        r"test: it, a Subset, takes examples twice, 1 times; expected each example once\. Give each index once",
    ),
    "a part of a part takes one twice": (
        lambda d: {"test": Subset(Subset(TensorDataset(*d["test"]), [0, 1, 0]), [0, 1, 2])},
        "test: it, a Subset, takes examples twice, 1 times",
    ),
    "train takes one twice and validation is of it": (
        lambda d: {"train": Subset(TensorDataset(*d["train"]), [*range(100)] * 2), "validation": None},
        "train: it, a Subset, takes examples twice, 100 times",
    ),
    "a sampler drops": (
        lambda d: {"test": loaded(d["test"], RandomSampler(range(128), num_samples=20))},
        "test: its sampler, a RandomSampler, takes 20 of 128 examples",
    ),
    "three in an example": (
        lambda d: {"train": Rows(lambda x, y: (x, x, y), d["train"])},
        r"train: an example is a tuple of 3; expected a pair, \(inputs, target\)",
    ),
    "no target by name": (
        lambda d: {"train": Rows(lambda x, y: {"pixels": x, "kind": y}, d["train"])},
        "train: an example has `pixels`, `kind`, and none is the target; expected one of labels",
    ),
    "an unknown stage": (lambda d: {"stages": ["prune.chanels"]}, r"did you mean `prune.channels`"),
    "no stage": (lambda d: {"stages": [OnnxExport]}, r"stages\[0\]: it is a .*Write OnnxExport\(\.\.\.\)"),
    "a wrong budget key": (lambda d: {"budget": {"sise": 1}}, "there is no key `sise`; did you mean `size`"),
    "a wrong argument": (lambda d: {"epoch": 3}, "there is no argument `epoch`"),
    "examples in both": (lambda d: {"test": d["train"]}, "256 of 256 train examples are also in test"),
    "a task and data": (lambda d: {"task": "digits"}, "train: there is a `task` beside it"),
    "another builder": (lambda d: {"builder": partial(TinyNet, width=4)}, "the keys do not fit"),
    "a builder of a script": (lambda d: {"builder": lambda: None}, r"builder: .* cannot be imported elsewhere"),
    "targets of another shape": (
        lambda d: {"train": (d["train"][0], torch.rand(256, 7))},
        r"train: the targets do not tell what a good answer is .* Give `loss=` and `score=`",
    ),
    "several processes": (lambda d: {"processes": 2}, "2 processes need what builds the task in each"),
    "torch in a process": (
        lambda d: {"stages": [{"use": "benchmark.latency", "runtimes": ["torch"]}]},
        r"whose processes build the model, .* Give shrinkline.compress builder",
    ),
    "another width": (
        lambda d: {"stages": [{"use": "distill.logits", "student": {"shrink_of": "teacher", "width": 4}}]},
        "the teacher was given as an object, so it cannot be built with other arguments",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_one_error_before_work(
    name: str, data: dict[str, Pair], net: nn.Module, tmp_path: Path
) -> None:
    changes, message = WRONG[name]
    options = {**data, **changes(data)}
    attempt = compressed if "processes" in options else planned
    with pytest.raises(ConfigError, match=message):
        attempt(net, options, tmp_path)
    assert not list(tmp_path.glob("runs/*/record.json"))


@pytest.mark.parametrize("model", [TinyNet, 3, None])
def test_a_model_that_is_none_is_told(model: Any, data: dict[str, Pair], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model: it is .*; expected a torch nn.Module"):
        planned(model, data, tmp_path)


def test_what_is_trained_on_may_come_more_often(data: dict[str, Pair], tmp_path: Path) -> None:
    parts = {**data, "train": Subset(TensorDataset(*data["train"]), [*range(100)] * 2)}
    assert len(planned(TinyNet(), parts, tmp_path).task.train) == 200


def test_loaders_and_dictionaries_are_taken_as_they_are(data: dict[str, Pair], tmp_path: Path) -> None:
    def joined(examples: list[Any]) -> dict[str, Tensor]:
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    subset = SubsetRandomSampler(range(0, 256, 2))
    parts = {
        "train": loaded(data["train"], subset),
        "validation": DataLoader(Rows(lambda x, y: (x, y), data["validation"]), batch_size=16, shuffle=True),
        "test": DataLoader(Rows(lambda x, y: {"x": x, "labels": y}, data["test"]), collate_fn=joined, drop_last=True),
    }
    splits = planned(
        TinyNet(), {**parts, "train": Rows(lambda x, y: {"x": x, "label": int(y)}, data["train"])}, tmp_path
    )
    assert [len(split) for split in splits.task.splits.values()] == [256, 256, 64, 128]
    assert len(planned(TinyNet(), {**data, "train": parts["train"]}, tmp_path).task.train) == 128
    assert next(iter(splits.task.test.loader(8))).inputs["x"].shape == (8, 1, 8, 8)


KINDS = {
    "classes": (torch.arange(8) % 4, 4, "single_label", {}),
    "labels": ((torch.arange(24) % 3 > 0).float().reshape(8, 3), 3, "multi_label", {}),
    "numbers": (torch.linspace(-1, 1, 8), 1, "regression", {}),
    "numpy": (np.arange(8) % 4, 4, "single_label", {}),
    "a loss of torch": (torch.arange(8) % 4, 4, "single_label", {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}),
}


@pytest.mark.parametrize("name", KINDS)
def test_targets_tell_loss_and_score(name: str, tmp_path: Path) -> None:
    targets, width, kind, options = KINDS[name]
    parts = {s: (torch.rand(8, 5, generator=torch.Generator().manual_seed(i)), targets) for i, s in enumerate("abc")}
    data = dict(zip(("train", "validation", "test"), parts.values(), strict=True))
    built = planned(nn.Linear(5, width), data, tmp_path, **options)
    assert built.task.target_kind == kind
    predictions = built.task.decode(built.model.predict, {"input": torch.rand(2, 5)})
    assert built.task.score(predictions, torch.as_tensor(targets)[:2]).shape == (2,)


def test_a_class_in_a_file_is_found_again_and_one_with_arguments_by_its_builder(
    data: dict[str, Pair], tmp_path: Path
) -> None:
    bare = planned(TinyNet(), data, tmp_path).config.model
    assert bare.use.endswith("conftest.py:TinyNet")
    assert Path(str(bare.weights)).is_file()
    assert planned(TinyNet(4), data, tmp_path).config.model.use == f"{LENT}:module"
    named = planned(TinyNet(4), data, tmp_path, builder=partial(TinyNet, width=4)).config.model
    assert (named.use, named.arguments) == (bare.use, {"width": 4})
    frozen = TinyNet()
    frozen.head.requires_grad_(False)
    assert planned(frozen, data, tmp_path).config.model.use == f"{LENT}:module"


def test_a_builder_that_gives_other_outputs_is_refused(data: dict[str, Pair], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    (tmp_path / "models.py").write_text(
        "from torch import nn\nnet = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU())\n"
    )
    with pytest.raises(ConfigError, match=r"builder .*other values for `output`.* Name what built this very model"):
        planned(model, data, tmp_path, builder="models.py:net", folder=tmp_path)


@pytest.mark.parametrize("run", [{"stages": ["export.onnx"]}, {}, ["a.yaml", "b.yaml"], None])
def test_what_cannot_be_compared_is_told(run: Any) -> None:
    with pytest.raises(ConfigError, match=r"compare: it is a .*; expected pipeline files; one mapping of their keys"):
        shrinkline.compare("first.yaml", run)


STRATEGIES = {"as it is": ["export.onnx"], "int8": ["export.onnx", {"use": "quantize.dynamic"}]}


def test_strategies_of_a_mapping_with_objects_are_compared(data: dict[str, Pair], tmp_path: Path) -> None:
    parts = [Split(TensorDataset(*data[name])) for name in ("train", "validation", "test")]
    config = {"model": TinyNet(8), "task": classification(*parts), "compare": {"axes": ["size", "retention"]}}
    compared = shrinkline.compare({**config, "strategies": STRATEGIES}, runs=tmp_path / "runs", track=False)
    sizes = {strategy.name: strategy.size_bytes for strategy in compared.record.strategies}
    assert [*sizes] == ["baseline", *STRATEGIES]
    assert sizes["int8"] < sizes["as it is"]
    assert compared.record.axes == ["size", "retention"]
    assert (Path(compared.record.folder) / "report.html").is_file()


@pytest.mark.parametrize(("changes", "message"), [
    ({"strategies": None}, "strategies: there is nothing to compare; expected"),
    ({"stages": []}, "strategies: there is nothing to compare; expected"),
    ({"strategies": {"baseline": []}}, "strategies: a strategy is called `baseline`, as the reference is"),
    ({"strategies": {"good": ["export.onnx"], "bad": ["prune.chanels"]}}, "did you mean `prune.channels`"),
    ({"seed": "3"}, "`seed` is '3'"),
    ({"compare": {"claims": {"int4": "8x"}}}, "compare.claims: there is no strategy `int4`; did you mean `int8`"),
    ({"strategies": {"good": ["export.onnx"], "bad": [{"use": "prune.channels", "macs": 0.01}]}}, "can lose channels"),
    ({"compare": {"seed": 3}}, "there is no key `seed`; did you mean `seeds`"),
])  # fmt: skip
def test_strategies_that_cannot_work_are_told_before_any_runs(
    changes: Any, message: str, data: dict[str, Pair], tmp_path: Path
) -> None:
    parts = [Split(TensorDataset(*data[name])) for name in ("train", "validation", "test")]
    config = {"model": TinyNet(8), "task": classification(*parts), "strategies": STRATEGIES, **changes}
    with pytest.raises(ConfigError, match=message):
        shrinkline.compare(config, runs=tmp_path / "runs", track=False)
    assert not list(tmp_path.glob("runs/*/record.json"))


@pytest.mark.slow
def test_the_notebook_of_the_docs_runs(tmp_path: Path) -> None:
    code = "import json, sys; from tests.notebook import run; print(run(json.load(open(sys.argv[1])))[-1][0]['data'])"
    words = [sys.executable, "-c", code, str(ROOT / "docs" / "from-python.ipynb")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": ""}
    child = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert "quantize.static" in child.stdout
