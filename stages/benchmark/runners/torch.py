"""Eager PyTorch on the CPU: a saved TorchModel's folder."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.forms.text.remapped import split
from pipeline.model import TorchModel, call
from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step


def load(spec: Spec) -> Loaded:
    """The model in the folder `model` of the spec, with the user's files in its `folder`."""
    module, vocabulary = opened(spec)
    return ready(module, vocabulary, spec)


def opened(spec: Spec) -> tuple[Any, Any]:
    """The module, and what puts the task's inputs into those that it takes, if there is something."""
    torch.set_num_threads(spec["threads"])
    torch.set_num_interop_threads(1)
    torch.set_grad_enabled(False)  # for the rest of this thread; an inference_mode() that nobody holds ends at once
    return split(TorchModel.load(Path(spec["model"]), Path(spec["folder"]), allow=None).module)


def ready(module: Any, vocabulary: Any, spec: Spec) -> Loaded:
    """A module that is called with the task's inputs, by several threads where the spec has requests at a time."""
    several = "concurrency" in spec

    def prepare(arrays: Arrays) -> Step:
        inputs = {name: torch.from_numpy(value) for name, value in arrays.items()}
        if vocabulary:  # whoever deploys the model has the pruned tokenizer
            inputs = vocabulary.translate(inputs)
        step = partial(call, module, inputs)
        return torch.no_grad()(step) if several else step  # each thread has its own mode

    description = {"version": torch.__version__, "execution_provider": "cpu", "threads": torch.get_num_threads()}
    return Loaded(prepare, _answers, description, concurrent=True)


def _answers(outputs: Any) -> Arrays:
    return {name: value.detach().numpy() for name, value in outputs.items()}
