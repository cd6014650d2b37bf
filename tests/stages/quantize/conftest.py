from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quantizing import RNG, Ran


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """The same weights and data for a test whichever others run before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
    torch.manual_seed(0)


@pytest.fixture
def quantized(tmp_path: Path) -> Callable[..., Ran]:
    return lambda stage, proto, **data: Ran(stage, proto, data, tmp_path)
