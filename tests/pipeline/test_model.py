"""A saved model is the same model in another process, and nothing of it is pickled."""

import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.errors import ConfigError, ShrinkError
from pipeline.model import Edit, OnnxModel, TorchModel, call, load, named

NETS = """
from torch import nn
from .parts import Scale
import torch

class Plain(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem, self.norm, self.head = nn.Linear(6, width), nn.BatchNorm1d(width), nn.Linear(width, 3)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.stem(x))))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.embed(x).mean(1))

class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(4, 3), nn.Linear(5, 3), Scale()

    def forward(self, second, first):
        return self.a(first), self.scale(self.b(second))

class Named(Several):
    def forward(self, first, second):
        return {"z": self.a(first), "note": "words", "c": self.b(second)}

class Empty(nn.Flatten):
    pass

def widen(module, width, seed):
    generator = torch.Generator().manual_seed(seed)
    module.stem, module.norm, module.head = nn.Linear(6, width), nn.BatchNorm1d(width), nn.Linear(width, 3)
    for p in module.parameters():
        p.data = torch.rand(p.shape, generator=generator)
    return module

def squash(module):
    module.last = nn.Sigmoid()
    return nn.Sequential(module, module.last)

def lose(module):
    return None
"""

PARTS = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.rand(()))
        self.register_buffer("shift", torch.rand(3))

    def forward(self, x):
        return x * self.factor + self.shift
"""

LOAD = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from pipeline.model import load

for directory in Path(sys.argv[1]).iterdir():
    model = load(directory, Path(sys.argv[2]))
    outputs = model.predict(model.example)
    save_file({name: value.contiguous() for name, value in outputs.items()}, directory / "outputs.safetensors")
"""

X = torch.rand(2, 6, generator=torch.Generator().manual_seed(0))
PAIR = {"first": torch.rand(2, 4), "second": torch.rand(2, 5)}
CASES: dict[str, Inputs] = {"Plain": {"input": X}, "Plain edited": {"input": X}}
CASES |= {"Tied": {"input": torch.randint(0, 50, (2, 7))}, "Several": PAIR, "Named": PAIR, "Empty": {"input": X}}


def build(folder: Path, case: str) -> TorchModel:
    torch.manual_seed(3)
    name, _, edited = case.partition(" ")
    model = TorchModel.build(Reference(use=f"nets.py:{name}", folder=folder), CASES[case])
    if edited:
        model = model.edited("nets.py:widen", width=11, seed=4).edited("nets.py:squash")
    for tensor in model.module.state_dict().values():  # not what the builder gives by itself
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.1)
    return model


WRAPPED = """
import torch
from torch import nn

def wrapped(case):
    module = nn.Sequential(nn.Flatten(), nn.LazyLinear(5) if case == "lazy" else nn.Linear(9, 5), nn.Linear(5, 4))
    if case == "part":
        module[1] = torch.compile(module[1])
    if case == "in place":
        module.compile()
    wrappers = {"compiled": torch.compile, "parallel": nn.DataParallel, "scripted": torch.jit.script}
    return wrappers.get(case, lambda same: same)(module)
"""


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("users")
    (folder / "nets.py").write_text(NETS)
    (folder / "parts.py").write_text(PARTS)
    (folder / "wrapped.py").write_text(WRAPPED)
    return folder


@pytest.fixture(scope="module")
def saved(users: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, TorchModel]]:
    """Every case, saved here and run in a process of its own."""
    folder = tmp_path_factory.mktemp("saved")
    models = {case: build(users, case) for case in CASES}
    for case, model in models.items():
        model.save(folder / case)
    subprocess.run([sys.executable, "-c", LOAD, str(folder), str(users)], check=True, cwd=users.parent)
    return folder, models


Saved = tuple[Path, dict[str, TorchModel]]


@pytest.mark.parametrize("case", CASES)
def test_a_new_process_gives_the_same_outputs_to_the_bit(saved: Saved, case: str) -> None:
    folder, models = saved
    expected = models[case].predict(CASES[case])
    found = load_file(folder / case / "outputs.safetensors")
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("case", CASES)
def test_nothing_pickled_is_saved(saved: Saved, case: str) -> None:
    files = sorted(p.name for p in (saved[0] / case).iterdir() if p.name != "outputs.safetensors")
    assert files == ["example.safetensors", "model.json", "weights.safetensors"]


def test_tied_weights_are_stored_once_and_stay_tied(saved: Saved, users: Path) -> None:
    directory = saved[0] / "Tied"
    stored = load_file(directory / "weights.safetensors")
    assert sum(t.numel() for t in stored.values()) == 50 * 16
    loaded = TorchModel.load(directory, users).module
    assert loaded.head.weight is loaded.embed.weight


def test_the_order_of_inputs_and_the_edits_are_kept(saved: Saved, users: Path) -> None:
    widen, squash = TorchModel.load(saved[0] / "Plain edited", users).edits
    assert (widen.use, widen.arguments) == ("nets.py:widen", {"width": 11, "seed": 4})
    assert (squash.use, squash.arguments) == ("nets.py:squash", {})
    assert list(TorchModel.load(saved[0] / "Named", users).example) == ["first", "second"]


def test_what_is_saved_does_not_name_this_machines_folders(saved: Saved, users: Path) -> None:
    text = (saved[0] / "Plain edited" / "model.json").read_text()
    assert json.loads(text)["builder"] == {"use": "nets.py:Plain", "arguments": {}}
    assert str(users) not in text


def test_an_edit_leaves_the_model_that_it_came_from_alone(users: Path) -> None:
    model = build(users, "Plain")
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    edited = model.edited("nets.py:widen", width=5, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert model.edits == ()
    assert edited.edits == (Edit(use="nets.py:widen", arguments={"width": 5, "seed": 0}, folder=users),)
    assert edited.module.stem.out_features == 5


@pytest.mark.parametrize(("use", "message"), [
    ("nets.py:lose", r"use: nets\.py:lose: it gave NoneType; expected a torch nn\.Module"),
    ("nets.py:widen", r"use: nets\.py:widen: TypeError: .*missing 2 required positional arguments"),
    ("nets.py:widn", r"`nets\.py` has no `widn`; did you mean `widen`"),
])  # fmt: skip
def test_an_edit_that_fails_is_named(users: Path, use: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(users, "Plain").edited(use)


@pytest.mark.parametrize("use", ["builtins:dict", "torch:zeros", "math:pi"])
def test_a_builder_that_makes_no_module_is_refused(use: str) -> None:
    arguments = {"size": [2]} if use == "torch:zeros" else {}
    message = rf"use: {use}: (it gave \w+; expected a torch nn\.Module|TypeError|it names a float)"
    with pytest.raises(ConfigError, match=message):
        TorchModel.build(Reference(use=use, arguments=arguments), {"input": X})


def test_a_model_is_in_evaluation_mode_and_predicting_keeps_it_there(users: Path) -> None:
    model = build(users, "Plain")
    running = model.module.norm.running_mean.clone()
    first = model.predict({"input": X})["output"]
    assert not any(m.training for m in model.module.modules())
    assert torch.equal(model.module.norm.running_mean, running)
    assert torch.equal(model.predict({"input": X})["output"], first)
    assert not first.requires_grad


def test_weights_that_do_not_fit_the_builder_are_refused(saved: Saved, users: Path, tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    build(users, "Plain").save(directory)
    content = json.loads((directory / "model.json").read_text())
    content["builder"]["arguments"] = {"width": 9}
    (directory / "model.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="size mismatch for stem"):
        TorchModel.load(directory, users)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no saved model; expected a model\.json"):
        load(tmp_path)


def test_a_model_is_not_taken_for_the_other_form(saved: Saved) -> None:
    with pytest.raises(ConfigError, match="it holds the torch form; expected the onnx form"):
        OnnxModel.load(saved[0] / "Plain")


@pytest.mark.parametrize("same", [lambda x: x, lambda x: x.view(2, 6), lambda x: x.T.contiguous().T])
def test_inputs_that_share_memory_can_be_saved(users: Path, tmp_path: Path, same: Callable[[Tensor], Tensor]) -> None:
    TorchModel.build(Reference(use="nets.py:Plain", folder=users), {"a": X, "b": same(X)}).save(tmp_path / "saved")
    loaded = TorchModel.load(tmp_path / "saved", users)
    assert torch.equal(loaded.example["a"], X)
    assert torch.equal(loaded.example["b"], X)


@pytest.mark.parametrize(("raw", "names"), [
    (X, ["output"]),
    ((X, X), ["output_0", "output_1"]),
    ([X], ["output_0"]),
    ({"b": X, "a": X}, ["b", "a"]),
    (OrderedDict(logits=X, cache=None), ["logits"]),
])  # fmt: skip
def test_outputs_are_named(raw: Any, names: list[str]) -> None:
    assert list(named(raw)) == names


@pytest.mark.parametrize("raw", [None, 3.0, {}, {"a": 1}, ()])
def test_a_model_that_returns_no_tensor_is_refused(raw: Any) -> None:
    with pytest.raises(ShrinkError, match=f"the model returned {type(raw).__name__}; expected a tensor"):
        named(raw)


def test_several_inputs_go_in_by_name_and_one_by_position() -> None:
    class Difference(nn.Module):
        def forward(self, b: Tensor, a: Tensor) -> Tensor:
            return a - b

    one, two = torch.ones(2), torch.ones(2) * 2
    assert call(Difference(), {"a": two, "b": one})["output"].tolist() == [1, 1]
    assert torch.equal(call(nn.Identity(), {"anything": two})["output"], two)


@pytest.mark.parametrize("case", ["compiled", "parallel", "part", "in place", "lazy"])
def test_wrappers_go_and_lazy_layers_get_their_shapes(users: Path, tmp_path: Path, case: str) -> None:
    inputs = {"input": torch.rand(2, 1, 3, 3)}
    model = TorchModel.build(Reference(use="wrapped.py:wrapped", arguments={"case": case}, folder=users), inputs)
    assert list(model.module.state_dict()) == ["1.weight", "1.bias", "2.weight", "2.bias"]
    assert model.predict(inputs)["output"].shape == (2, 4)
    model.save(tmp_path)
    again = TorchModel.load(tmp_path, users)
    assert torch.equal(again.predict(inputs)["output"], model.predict(inputs)["output"])


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_called_so(users: Path) -> None:
    scripted = Reference(use="wrapped.py:wrapped", arguments={"case": "scripted"}, folder=users)
    with pytest.raises(ConfigError, match="it is TorchScript, which cannot be exported"):
        TorchModel.build(scripted, {"input": X})
