"""Where to compute, and the seed of every generator."""

import random

import numpy as np
import torch

from pipeline.errors import ConfigError


def set_seed(seed: int) -> None:
    """Seed every generator that a stage may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def pick_device(name: str) -> torch.device:
    """The device that the config names. Raises ConfigError for a GPU that is not there."""
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        fix = "Set `device: auto` or install a CUDA build of torch"
        raise ConfigError("there is no CUDA device", where="device", fix=fix)
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")
