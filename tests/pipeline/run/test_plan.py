"""What a baseline's training would end in is told by the plan, before it begins."""

from pathlib import Path

import pytest

from pipeline.build.build import build
from pipeline.build.source import load_config
from pipeline.errors import ConfigError
from pipeline.run.plan import as_json
from pipeline.run.store.store import Store
from tests.aliases import Make
from tests.users import chain_of

MODELS = """
from torch import nn

class Checked(nn.Sequential):
    def forward(self, x):
        assert not x.isnan().any()
        return super().forward(x)

def net():
    return Checked(nn.Flatten(), nn.Linear(64, 4))
"""


def planned(path: Path) -> dict[str, object]:
    return as_json(build(*load_config(path)), Store(path.parent / "store"))


def test_a_model_that_cannot_be_exported_is_refused_before_it_is_trained(project: Make) -> None:
    chain = chain_of("export.onnx", model="use: models.py:net", baseline="train.supervised, epochs: 1")
    with pytest.raises(ConfigError, match=r"depends on the values of a tensor in models\.py:6, `assert not") as refusal:
        planned(project(chain, **{"models.py": MODELS}))
    assert refusal.value.where == "model, ONNX export"


def test_a_baseline_that_may_change_the_model_is_not_judged_by_it(project: Make) -> None:
    chain = chain_of("export.onnx", model="use: models.py:net", baseline="prune.channels, params: 0.5")
    assert planned(project(chain, **{"models.py": MODELS}))["chain"]
