"""A module that was given from Python is copied as it is meant, and is itself left as it was."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.base.files import file_digest
from pipeline.build.live.lent import Loan
from pipeline.build.live.module import own_copy, source
from pipeline.errors import ConfigError

X = torch.rand(2, 3)


def compiled() -> nn.Module:
    net = torch.compile(nn.Linear(3, 4), backend="eager")
    net(X)
    return nn.Sequential(net, nn.Tanh())


MODULES: dict[str, Callable[[], Any]] = {
    "weight norm": lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4))),
    "around": lambda: nn.DataParallel(nn.Sequential(nn.Linear(3, 4))),
    "around a part": lambda: nn.Sequential(nn.DataParallel(nn.Linear(3, 4)), nn.Tanh()),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("make", [*MODULES.values(), pytest.param(compiled, marks=pytest.mark.slow)])
def test_wrappers_go_from_the_copy_and_stay_in_the_original(make: Callable[[], nn.Module]) -> None:
    module = make()
    kinds = [type(part) for part in module.modules()]
    held = [copy.copy(vars(part)) for part in module.modules()]
    twin = own_copy(module)
    assert not [n for n in twin.state_dict() if "module" in n or "_orig_mod" in n]
    assert twin(X).shape == (2, 4)
    assert all(torch.equal(a, b.cpu()) for a, b in zip(twin.parameters(), module.parameters(), strict=True))
    assert [type(part) for part in module.modules()] == kinds
    assert all(vars(part) == values for part, values in zip(module.modules(), held, strict=True))


def test_weights_that_are_there_are_not_believed(tmp_path: Path) -> None:
    objects: dict[str, Loan] = {}
    first = source(nn.Linear(3, 4), None, tmp_path, tmp_path / "given", objects)
    module = objects[first["digest"]].value
    file = Path(first["weights"])
    for damage in (lambda: None, lambda: file.write_bytes(b"other"), file.unlink):
        damage()
        assert source(module, None, tmp_path, tmp_path / "given", objects) == first
        assert file_digest(file) == first["sha256"]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_called_so() -> None:
    with pytest.raises(ConfigError, match=r"model: it is TorchScript, which cannot be exported.*torch.jit.script or"):
        own_copy(torch.jit.script(nn.Linear(3, 4)))
    for part in (torch.jit.script(nn.Linear(3, 4)), torch.jit.trace(nn.Linear(3, 4), X)):
        with pytest.raises(ConfigError, match="model: `1` is TorchScript"):
            own_copy(nn.Sequential(nn.ReLU(), part))
