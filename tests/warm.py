"""Imported by the server of tests/forked.py: does once what its children would each do anew, and leaves no thread."""

import inspect
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import tqdm
from mlflow.utils import requirements_utils
from torch import nn

from pipeline.base.hardware import LIBRARIES, version
from pipeline.base.use import Reference
from pipeline.cli.catalogue import built_in_stages
from pipeline.deploy import deploy
from pipeline.model import TorchModel
from pipeline.report.html import page
from pipeline.run.store.key import Sources
from tests import kept

tqdm.tqdm.monitor_interval = 0  # its thread, which no fork has
torch.set_num_threads(1)
kept.install(None)
with TemporaryDirectory() as folder, torch.random.fork_rng():
    model = TorchModel(nn.Linear(2, 2), {"input": torch.zeros(2, 2)}, Reference(use="none.py"))
    deploy(model, Path(folder) / "model.onnx")
requirements_utils._init_packages_to_modules_map()
for library in LIBRARIES:
    version(library)
for template in page.HERE.glob("*.j2"):
    page._environment().get_template(template.name)
Sources().code(Path(inspect.getfile(stage)) for stage in built_in_stages().values())
