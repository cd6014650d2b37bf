import pytest
import torch

from pipeline.errors import NotFinite
from stages.quantize.halves.answers import difference


def test_outputs_that_become_infinite_are_an_error() -> None:
    old = torch.tensor([1.0, 3.0, -torch.inf])
    assert difference("y", old, torch.tensor([1.0, 2.5, -torch.inf])) == 0.25
    assert difference("y", torch.ones(2), torch.ones(2)) == 0
    for wrong in (torch.inf, torch.nan):
        with pytest.raises(NotFinite, match="the output `y` becomes infinite on the calibration data"):
            difference("y", old, torch.tensor([1.0, wrong, -torch.inf]))
