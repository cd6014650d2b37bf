"""What both ways through Optimum share: the library's own model inside a module, and its export to a folder."""

import copy
import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.base.formatting import few
from pipeline.base.use import nearest
from pipeline.context import Preview
from pipeline.errors import ConfigError, ShrinkError, StageError, blame
from pipeline.forms.deployed.seq2seq import hush
from pipeline.forms.layers import aside, is_encoder_decoder, transformers_model
from pipeline.forms.tracing import slow_path
from pipeline.model import TorchModel
from pipeline.stage import Stage

LIBRARY = "transformers"
LENGTH = 16
"""Tokens that Optimum traces with by itself."""
LEFT_OUT = ("_name_or_path", "_from_model_config", "transformers_version", "architectures", "torch_dtype", "dtype")
"""Of a configuration: what differs from one machine to the next, or says nothing to a runtime."""


def expect(before: "tuple[Stage, ...]", preview: Preview, *, generates: bool) -> None:
    """Raise ConfigError where the model at the start is known to go the other way, or is not of transformers.

    A stage before that brings a student may make any model; then only the run can tell.
    """
    if not isinstance(preview.model, TorchModel) or any("student" in type(stage).model_fields for stage in before):
        return
    _inner_that(preview.model.module, generates, ConfigError)


def library_model(model: TorchModel, *, generates: bool) -> Any:
    """A copy of the transformers model in it, as one of the library's own class, since Optimum looks at the class.

    A user's class that is derived from it may give other outputs; whoever exports compares them with the file's.

    Raises:
        StageError: there is none, it goes the other way, or it was trained with quantized weights.
    """
    inner_model = _inner_that(model.module, generates, StageError)
    if aside(model.module):
        fix = "Use export.onnx, or leave quantize.aware out"
        raise StageError("the model computes with quantized weights, which Optimum would write as they were", fix=fix)
    model_copy = copy.deepcopy(inner_model)
    model_copy.__class__ = next(kind for kind in type(inner_model).__mro__ if _is_theirs(kind))
    if model_copy.__class__.__name__ == "PreTrainedModel":
        expected = f"a class that is derived from one of {LIBRARY}, such as MarianMTModel"
        raise StageError(f"`{type(inner_model).__name__}` is an architecture of its own", expected=expected)
    return model_copy.eval()


def export(model: Any, folder: Path, task: str | None, opset: int) -> None:
    """Have Optimum write a model's graphs into a folder.

    Args:
        model: of the library's class.
        folder: where they go.
        task: as Optimum names it; None for that of the model's class.
        opset: ONNX operator set.

    Raises:
        StageError: it cannot; says which weights are not as the configuration says, where there are any.
    """
    from optimum.exporters.onnx import onnx_export_from_model
    from optimum.exporters.tasks import TasksManager

    kind, names = model.config.model_type, misfits(model)
    quiet = redirect_stdout(StringIO())
    with hush(), slow_path(), quiet, blame(StageError, "Optimum's exporter", fix=_advice(names)):
        try:
            supported_tasks = list(TasksManager.get_supported_tasks_for_model_type(kind, "onnx", library_name=LIBRARY))
        except KeyError:
            raise StageError(f"it does not know models of the type `{kind}`", fix="Use export.onnx") from None
        if task is not None and task not in supported_tasks:
            fix = "Use export.onnx"
            raise StageError(f"it does not export `{kind}` for {task}{nearest(task, supported_tasks)}", fix=fix)
        options = {"opset": opset, "do_validation": False, "no_post_process": True, "device": "cpu"}
        onnx_export_from_model(model, folder, task=task, sequence_length=_traced_length(model), **options)


def plain(config: Any) -> str:
    """A configuration as JSON, the same on every machine."""
    settings = {name: value for name, value in json.loads(config.to_json_string()).items() if name not in LEFT_OUT}
    return json.dumps(settings, indent=2, sort_keys=True) + "\n"


def misfits(model: Any) -> list[str]:
    """Names of weights whose shapes are not those that the configuration says, as after pruning."""
    import torch

    try:
        with torch.device("meta"):
            built = type(model)(copy.deepcopy(model.config))
    except ValueError:  # heads by which the width cannot be divided, as where some have left
        return [*model.state_dict()]
    configured_shapes = {name: tuple(value.shape) for name, value in built.state_dict().items()}
    return [name for name, value in model.state_dict().items() if configured_shapes.get(name) != tuple(value.shape)]


def _traced_length(model: Any) -> int:
    """How long the texts are that the exporter traces with; a decoder with past sees one token more."""
    positions = getattr(model.config, "max_position_embeddings", None) or LENGTH + 1
    return int(max(2, min(LENGTH, positions - 1)))


def _advice(names: list[str]) -> str:
    if not names:
        return "Use export.onnx, or a model that Optimum can export"
    return f"Have the module's config say the sizes that it has; it differs in {few(names)}"


def _is_theirs(kind: type) -> bool:
    """Whether the library itself has this class, and not one of the same name that was derived from it."""
    inside = kind.__module__.startswith(f"{LIBRARY}.")
    return inside and getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind


def _inner_that(module: nn.Module, generates: bool, error: type[ShrinkError]) -> nn.Module:
    """The transformers model in a module; raise the error where there is none, or it goes the other way."""
    inner_model = transformers_model(module)
    if inner_model is None:
        expected = "a transformers PreTrainedModel, or a module around one"
        fix = "Use export.onnx, which takes any module"
        raise error(f"there is no transformers model in `{type(module).__name__}`", expected=expected, fix=fix)
    if is_encoder_decoder(inner_model) != generates:
        problem = f"`{type(inner_model).__name__}` is {'no encoder-decoder' if generates else 'an encoder-decoder'}"
        expected = "an encoder-decoder" if generates else "an encoder"
        raise error(problem, expected=expected, fix=f"Use {'export.optimum' if generates else 'export.seq2seq'}")
    return inner_model
