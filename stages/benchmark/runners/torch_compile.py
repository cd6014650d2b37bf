"""PyTorch compiled by Inductor for the CPU: a saved TorchModel's folder."""

import os

import torch

from stages.benchmark.runners.loaded import Loaded, Spec
from stages.benchmark.runners.torch import opened, ready


def load(spec: Spec) -> Loaded:
    """The model as runners.torch loads it; the first inference compiles it for the shapes of its inputs."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = spec["cache"]
    module, vocabulary = opened(spec)
    return ready(torch.compile(module, dynamic=False), vocabulary, spec)
