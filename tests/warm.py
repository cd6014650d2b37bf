"""Imported by the server of tests/forked.py: does once what its children would each do anew, and leaves no thread."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import tqdm
from mlflow.utils import requirements_utils
from torch import nn

from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.model import TorchModel
from tests import kept

tqdm.tqdm.monitor_interval = 0  # its thread, which no fork has
torch.set_num_threads(1)
kept.install(None)
with TemporaryDirectory() as folder, torch.random.fork_rng():
    model = TorchModel(nn.Linear(2, 2), {"input": torch.zeros(2, 2)}, Reference(use="none.py"))
    deploy(model, Path(folder) / "model.onnx")
requirements_utils._init_packages_to_modules_map()
