"""What is known of a model and a task once they have been built and tried on a few examples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx
from torch import Tensor, nn
from torch.utils.data import default_collate

from pipeline.base.use import Reference
from pipeline.build.config import ModelSource
from pipeline.build.probe import see
from pipeline.build.start import build_task, start_model
from pipeline.build.trial import try_out
from pipeline.cli.init.architecture import (
    Kind,
    depth_of,
    kind_of,
    kind_of_operators,
    layers_of,
    share_between,
    share_in,
    share_in_layers,
    width_of,
)
from pipeline.context import Preview
from pipeline.errors import ConfigError, blame
from pipeline.forms.graph import QUANTIZED
from pipeline.forms.layers import transformers_model
from pipeline.measure.cost import onnx_params, torch_params
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.task import Split, Task

FEW = 64  # examples of each split that are looked at; `shrink plan` looks at all
BYTES = 4  # of a weight in fp32
LOOPS = (nn.GRU, nn.RNN, nn.RNNCellBase)


@dataclass(frozen=True)
class Facts:
    """What decides the preset and its values.

    Args:
        kind: what the model is made of.
        onnx: whether it comes as an ONNX file.
        trained: whether it comes with weights.
        quantized: whether it is an ONNX file with quantized nodes.
        library: whether it is a model of transformers.
        text: whether it reads token ids.
        params: number of parameters.
        width: the usual number of outputs of its layers.
        depth: layers in its longest list of layers.
        layers: parts with parameters of their own, or the nodes of a file.
        between: share of the weights that are in neither the first nor the last layer.
        in_layers: share of the parameters in such lists.
        embeddings: share of the parameters in tables of embeddings.
        loops: share of the parameters in recurrent layers that are not quantized as they come: all but LSTMs.
        examples: by split.
        logits: whether predictions are scores over classes.
        labels: whether they are of labels that are decided one by one.
        as_target: whether the task can make examples of generated tokens.
        ratio: whether no score that was seen is below zero, as a retention needs.
    """

    kind: Kind
    onnx: bool
    trained: bool
    quantized: bool
    library: bool
    text: bool
    params: int
    width: int
    depth: int
    layers: int
    between: float
    in_layers: float
    embeddings: float
    loops: float
    examples: Mapping[str, int]
    logits: bool
    labels: bool
    as_target: bool
    ratio: bool

    @property
    def size_bytes(self) -> int:
        """Of the weights in fp32."""
        return BYTES * self.params


def look(source: ModelSource, reference: Reference, *, allow_unsafe_load: bool = False) -> tuple[Facts, Task, Preview]:
    """Build the task and the model, try them on the first examples, and say what was found.

    Args:
        source: `model:`, with weights where there are some.
        reference: `task:`.
        allow_unsafe_load: unpickle weights that are more than tensors, where `source` has their sha256.

    Raises:
        ConfigError: something is not there, cannot be built, or does not fit: shapes, labels, the loss, the scores.
    """
    task = build_task(reference)
    first = _first(task)
    summaries = {name: see(name, split) for name, split in first.splits.items()}
    model, _, trained = start_model(source, task, allow_unsafe_load=allow_unsafe_load)
    if not isinstance(model, TorchModel | OnnxModel):
        raise ConfigError(f"the model is {type(model).__name__}", expected="a torch module or one ONNX file")
    first, _ = try_out(first, model, summaries)
    task = replace(task, target_kind=first.target_kind, class_axis=first.class_axis, logits=first.logits)
    examples = {name: len(split) for name, split in task.splits.items()}
    preview = Preview(model, task)
    facts = _facts(model, trained, task, _is_ratio(first, model), examples)
    if isinstance(model, OnnxModel):
        model.close()  # the process that runs it; it starts again where it is asked once more
    return facts, task, preview


def _first(task: Task) -> Task:
    """The task with the first examples of each split."""
    splits: Any = {name: split.select(list(range(min(FEW, len(split))))) for name, split in task.splits.items()}
    return replace(task, **splits)


def _facts(model: TorchModel | OnnxModel, trained: bool, task: Task, ratio: bool, examples: dict[str, int]) -> Facts:
    file = model if isinstance(model, OnnxModel) else None
    operators = [n.op_type for n in onnx.load(file.path, load_external_data=False).graph.node] if file else []
    module = model.module if isinstance(model, TorchModel) else nn.Identity()
    return Facts(
        kind=kind_of_operators(operators) if file else kind_of(module, model.example),
        onnx=file is not None,
        trained=trained,
        quantized=bool(QUANTIZED & set(operators)),
        library=transformers_model(module) is not None,
        # An input of whole numbers with an axis beside the batch: token ids, not a mask alone.
        text=any(not value.is_floating_point() and value.ndim == 2 for value in model.example.values()),
        params=onnx_params(file) if file else torch_params(module),
        width=width_of(module),
        depth=depth_of(module),
        layers=len(operators) if file else layers_of(module),
        between=share_between(module),
        in_layers=share_in_layers(module),
        embeddings=share_in(module, [part for part in module.modules() if isinstance(part, nn.Embedding)]),
        loops=_loops(module, operators),
        examples=examples,
        logits=task.logits,
        labels=task.target_kind == "multi_label",
        as_target=task.as_target is not None,
        ratio=ratio,
    )


def _loops(module: nn.Module, operators: list[str]) -> float:
    """Of an ONNX file all or nothing: whose the weights are is not looked at."""
    of_file = {"GRU", "RNN"} & set(operators)
    return 1.0 if of_file else share_in(module, [part for part in module.modules() if isinstance(part, LOOPS)])


def _is_ratio(task: Task, model: Model) -> bool:
    """Whether a retention of the scores means something, by those of the first examples: none is below zero."""
    split: Split = task.validation
    with blame(ConfigError, "task, the first validation examples"):
        rows = [split[i] for i in range(min(len(split), 8))]
        inputs, targets = (split.collate or default_collate)(rows)
        named: Any = {"input": inputs} if isinstance(inputs, Tensor) else inputs
        scores = task.score(task.decode(model.predict, named), targets)
        return bool((scores >= 0).all())
