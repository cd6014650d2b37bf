"""A saved model names code in its JSON: nothing is called, or imported, that is not ours or the pipeline file's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline import model as models
from pipeline.base.use import Reference
from pipeline.errors import ConfigError
from pipeline.model import Edit, TorchModel

EXAMPLE = {"input": torch.zeros(2, 3)}
NETS = """
from pathlib import Path
from shutil import rmtree
from torch import nn
from torch.nn import Linear
from .helpers import deep

class Net(nn.Linear):
    def __init__(self):
        super().__init__(3, 3)

def net():
    return nn.Linear(3, 3)

def annotated() -> nn.Linear:
    return nn.Linear(3, 3)

def marks(*_) -> Path:
    Path("{mark}").touch()
    return nn.Linear(3, 3)
"""
HELPERS = "from torch import nn\n\ndef deep():\n    return nn.Linear(3, 3)\n"


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """saved(use, edit): a model in runs/model whose JSON names this code."""
    (tmp_path / "nets.py").write_text(NETS.replace("{mark}", str(tmp_path / "mark")))
    (tmp_path / "helpers.py").write_text(HELPERS)
    (tmp_path / "marker.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n\ndef net():\n    pass\n")

    def make(use: str, edit: str = "") -> Path:
        directory = tmp_path / "runs" / "model"
        TorchModel(nn.Linear(3, 3), EXAMPLE, Reference(use=use), (Edit(use=edit),) if edit else ()).save(directory)
        return directory

    return make


@pytest.mark.parametrize("use", ["nets.py:Net", "nets.py:net", "nets.py:annotated", "nets.py:deep"])
def test_what_a_file_beside_the_pipeline_file_defines_is_built(saved: Callable[..., Path], use: str) -> None:
    directory = saved(use)
    assert isinstance(models.load(directory, directory.parents[1]), TorchModel)


@pytest.mark.parametrize(
    "use",
    [
        "os:system",
        "torch.nn:Linear",
        "builtins:print",
        "antigravity:fly",
        "pipeline.base.files:write_whole",
        "pipeline.base.files:Path",
        "pipeline.model:nn",
        "pipeline.model:load_model",
        "nets.py:rmtree",
        "nets.py:Linear",
        "nets.py:marks",
        "nets.py",
        "../nets.py:net",
        "{folder}/nets.py:net",
        "runs/marker.py:net",
        "runs/model/marker.py:net",
        "linked/nets.py:net",
    ],
)
@pytest.mark.parametrize("as_edit", [False, True])
def test_other_code_is_refused_with_what_to_allow(
    saved: Callable[..., Path], tmp_path: Path, use: str, as_edit: bool
) -> None:
    use = use.format(folder=tmp_path)
    directory = saved("nets.py:net", use) if as_edit else saved(use)
    for place in (tmp_path / "runs", directory):
        (place / "marker.py").write_text((tmp_path / "marker.py").read_text())
    (tmp_path / "linked").symlink_to(tmp_path.parent)
    with pytest.raises(ConfigError, match="it names the code") as refused:
        models.load(directory, tmp_path)
    assert f'allow: ["{use}"]' in str(refused.value)
    assert not (tmp_path / "mark").exists()


def test_what_is_allowed_by_name_is_built(saved: Callable[..., Path]) -> None:
    directory = saved("torch.nn:Linear")
    content = json.loads((directory / "model.json").read_text())
    content["builder"]["arguments"] = {"in_features": 3, "out_features": 3}
    (directory / "model.json").write_text(json.dumps(content))
    assert isinstance(models.load(directory, allow=["torch.nn:Linear"]), TorchModel)
    assert isinstance(models.load(directory, allow=None), TorchModel)
    with pytest.raises(ConfigError, match="it names the code"):
        models.load(directory, allow=["torch.nn:Conv2d"])


@pytest.mark.parametrize(
    "use",
    [
        "stages.prune.reshape:reshape",
        "stages.kd.inspection.layers:keep_layers",
        "pipeline.forms.text.remapped:without_tokens",
        "pipeline.tasks.huggingface.models:network",
        "pipeline.tasks.huggingface.timm:network",
    ],
)
def test_the_builders_and_edits_of_ours_are_trusted(use: str, tmp_path: Path) -> None:
    from pipeline.forms.sandbox.code import check_code

    check_code(Reference(use=use), tmp_path, ())


@pytest.mark.parametrize("text", ["", "[]", '{"form": 1}', '{"form": "torch", "inputs": ["x"], "builder": 3}', "\0"])
def test_a_damaged_description_is_an_error_with_its_place(saved: Callable[..., Path], text: str) -> None:
    directory = saved("nets.py:net")
    (directory / "model.json").write_text(text)
    with pytest.raises(ConfigError, match="model"):
        models.load(directory, directory.parents[1])
