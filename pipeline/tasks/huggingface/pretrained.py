"""The model at the start of a chain, fitted to the task: from the hub, a folder, or a configuration alone.

`model: {use: huggingface, name: google-bert/bert-base-uncased}` or
`model: {use: huggingface, config: {model_type: bert, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2}}`
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.base.batches import Inputs
from pipeline.base.data.hub import check_reachable
from pipeline.base.formatting import few
from pipeline.base.use import Reference
from pipeline.errors import ConfigError, is_exhausted
from pipeline.forms.text.positions import positions
from pipeline.model import TorchModel
from pipeline.task import Task
from pipeline.tasks.huggingface.models import EAGER, configured, model_class, plain_config
from pipeline.tasks.huggingface.settings import Kind
from pipeline.tasks.huggingface.text.assembly import IDS
from pipeline.tasks.huggingface.text.translation import DECODER_IDS

NETWORK = "pipeline.tasks.huggingface.models:network"
SAFE = "*.safetensors"
UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class Start:
    """A model, whether all of it is trained, and what is to be said of it."""

    model: TorchModel
    trained: bool = False
    notes: tuple[str, ...] = ()


def model(
    task: Task,
    example: Inputs,
    name: str | None = None,
    config: dict[str, Any] | None = None,
    pretrained: bool | None = None,
    revision: str | None = None,
    kind: Kind | None = None,
    labels: int | None = None,
    **changes: Any,
) -> Start:
    """A model of `transformers` for a task. What is saved of it is its configuration: a rebuild reads no weights.

    Args:
        task: what it is for.
        example: a small batch of its inputs.
        name: on the hub, or a folder with a config.json.
        config: instead of `name`: `model_type` and what differs from its defaults. Sizes that follow from the task,
            such as the vocabulary's or the image's, are filled in.
        pretrained: load the weights of `name`, safetensors alone; unless given, where there are any.
        revision: of `name` on the hub.
        kind, labels: what to learn and how many classes; those of the task unless given.
        changes: put over the configuration, such as `hidden_dropout_prob: 0.2`.

    Raises:
        ConfigError: there is no such model, its weights are missing, unsafe or do not fit, or task and model disagree.
    """
    _check_origin(name, config)
    kind = kind or getattr(task, "kind", None)
    if kind is None:
        raise ConfigError("the task does not say what kind it is", fix="Add `kind`, such as text_classification")
    label_settings = _head(task, kind, labels)
    configuration = _config(name, revision) if name else None
    own = {**(config or {}), **changes}
    base_config = plain_config(configuration) if configuration else _filled(own, task, example, kind)
    final_config = plain_config(configured(base_config, {**changes, **label_settings}))
    _check_fit(final_config, task, example)
    builder = Reference(use=NETWORK, arguments={"kind": kind, "config": final_config})
    torch_model = TorchModel.build(builder, example, task.axes)
    check_positions(torch_model.module, task, example)
    if name is None or configuration is None or not (_has_weights(name) if pretrained is None else pretrained):
        return Start(torch_model)
    fresh = _load(torch_model.module, kind, name, revision, final_config)
    if "num_labels" in label_settings or "id2label" in label_settings:
        _check_order(configuration.id2label, task.labels, name)
    return Start(torch_model, not fresh, fresh_note(name, fresh))


def _check_origin(name: str | None, config: Any) -> None:
    """Raise ConfigError unless there is one of the two, as a user may write it."""
    if (name is None) == (config is None):
        problem = "there are both `name` and `config`" if name else "there is neither `name` nor `config`"
        raise ConfigError(problem, expected="one")
    if not isinstance(config, dict | None):
        raise ConfigError(f"`config` is {config!r}", expected="a mapping such as {model_type: bert, hidden_size: 64}")


def fresh_note(name: str, fresh: list[str]) -> tuple[str, ...]:
    """What is said of weights that a file has not, or in another shape."""
    return (f"the weights of {name} have no fitting {few(fresh, 4)}: these begin untrained",) if fresh else ()


def classes_of(task: Task, labels: int | None) -> int:
    """How many classes there are. Raises ConfigError where neither task nor argument says it, or they differ."""
    if labels is None and not task.labels:
        raise ConfigError("the task has no names of classes", fix="Add `labels`, the number of classes")
    if labels is not None and task.labels and labels != len(task.labels):
        raise ConfigError(f"`labels` is {labels}", expected=f"{len(task.labels)}, as the task has")
    return labels or len(task.labels)


def _head(task: Task, kind: Kind, labels: int | None) -> dict[str, Any]:
    """What the task says of the head."""
    if kind in ("similarity", "translation"):
        return {}
    if kind == "text_regression":
        return {"num_labels": 1}
    count = classes_of(task, labels)
    if not task.labels:
        return {"num_labels": count}
    return {"id2label": {str(i): label for i, label in enumerate(task.labels)}}


def _check_order(theirs: dict[int, str], ours: Sequence[str], name: str) -> None:
    """Refuse a trained head whose classes are those of the task in another order: it would look untrained."""
    a, b = ([str(label).lower() for label in labels] for labels in (theirs.values(), ours))
    if a != b and sorted(a) == sorted(b):
        problem = f"its classes are {', '.join(theirs.values())}, in another order than the task's"
        expected = ", ".join(ours)
        raise ConfigError(problem, where=name, expected=expected, fix="Give it to a task with its order of labels")


def _filled(config: dict[str, Any], task: Task, example: Inputs, kind: Kind) -> dict[str, Any]:
    """What is given, and sizes and tokens that follow from the task, as far as this type of model knows them."""
    configuration = configured({"model_type": config.get("model_type")}, {})
    task_settings: dict[str, Any] = {}
    if task.tokenizer is not None:
        ids = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id")
        task_settings = {name: getattr(task.tokenizer, name) for name in ids} | {"vocab_size": len(task.tokenizer)}
    if "decoder_input_ids" in example:
        task_settings["decoder_start_token_id"] = int(example["decoder_input_ids"][0, 0])
        task_settings |= {"forced_eos_token_id": None, "forced_bos_token_id": None}
    if kind == "image_classification":
        _, channels, height, width = next(iter(example.values())).shape
        task_settings |= {"num_channels": channels, "image_size": height if height == width else [height, width]}
    if kind == "audio_classification" and next(iter(example.values())).ndim == 3:
        _, task_settings["max_length"], task_settings["num_mel_bins"] = next(iter(example.values())).shape
    always = ("decoder_start_token_id", "forced_eos_token_id", "forced_bos_token_id")
    own = configuration.to_dict()
    names = [name for name, value in task_settings.items() if value is not None or name in always]
    return {name: task_settings[name] for name in names if name in own} | config


def _check_fit(config: dict[str, Any], task: Task, example: Inputs) -> None:
    """Refuse a vocabulary that is too small, and a decoder that begins with another token than the task's."""
    size = config.get("vocab_size")
    if task.tokenizer is not None and isinstance(size, int) and len(task.tokenizer) > size:
        fix = "Give the task the model's own `tokenizer`"
        raise ConfigError(f"the tokenizer has {len(task.tokenizer)} tokens and the model {size}", fix=fix)
    if "decoder_input_ids" not in example:
        return
    start, model_start = int(example["decoder_input_ids"][0, 0]), config.get("decoder_start_token_id")
    if model_start is not None and model_start != start and task.tokenizer is not None:
        fix = f"Set `start: {task.tokenizer.convert_ids_to_tokens(model_start)}` in the task"
        raise ConfigError(f"the model's decoder begins with token {model_start}, the task's with {start}", fix=fix)


def _config(name: str, revision: str | None) -> Any:
    check_reachable(name, "models", "name")
    from transformers import AutoConfig

    with explained(name):
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)


def _has_weights(name: str) -> bool:
    """Whether there are weights to load; what is on the hub has them."""
    folder = Path(name)
    return not folder.is_dir() or any(any(folder.glob(pattern)) for pattern in (SAFE, *UNSAFE))


def _load(module: nn.Module, kind: Kind, name: str, revision: str | None, config: dict[str, Any]) -> list[str]:
    """Load the weights of `name` into a module; gives the names of those that are not there and stay as they are."""
    with explained(name), _no_warnings():
        safe = {"revision": revision, "use_safetensors": True, "trust_remote_code": False}
        plain = {"ignore_mismatched_sizes": True, "output_loading_info": True, "dtype": "float32", **EAGER}
        loaded, loading_info = model_class(kind).from_pretrained(name, config=configured(config, {}), **safe, **plain)
    other = [entry[0] if isinstance(entry, tuple) else entry for entry in loading_info["mismatched_keys"]]
    fresh = sorted({*loading_info["missing_keys"], *other})
    inner = f"{loaded.base_model_prefix}."
    body = [key for key in loaded.state_dict() if key.startswith(inner) or kind == "similarity"]
    if misfits := [key for key in other if key in body]:
        fix = "Leave the sizes as they are, or set `pretrained: false`"
        raise ConfigError(f"the weights have another shape in {', '.join(misfits[:3])}", where=name, fix=fix)
    if body and len([key for key in body if key in fresh]) > len(body) / 2:
        problem = f"{len(fresh)} of {len(loaded.state_dict())} weights are missing, such as {fresh[0]}"
        raise ConfigError(problem, where=name, fix="Name the model that the weights are of")
    target = module.encoder if kind == "similarity" else module
    state = loaded.state_dict()
    target.load_state_dict({key: state[key] for key in target.state_dict()})  # type: ignore[union-attr]
    return [key for key in fresh if key in target.state_dict()]  # type: ignore[union-attr]


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Without what `transformers` prints of weights that are new; one note says it."""
    from logging import ERROR

    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Says in one line why a model cannot be read."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        if is_exhausted(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        if "safetensors" in reason:
            problem = f"it has no safetensors weights, and others may hold code ({reason})"
            raise ConfigError(problem, where=name, fix="Save them with model.save_pretrained(FOLDER)") from error
        expected = "a name on the Hugging Face hub that can be reached, or a folder with a config.json"
        raise ConfigError(f"it cannot be read: {reason}", where=name, expected=expected) from error


LIMITS = {IDS: ("max_length", "texts"), DECODER_IDS: ("max_target_length", "translations")}
"""For each input the key of the task that cuts it, and what it holds."""


def check_positions(module: nn.Module, task: Task, example: Inputs) -> None:
    """Raise ConfigError where texts may be longer than the model has positions for: torch would fail with a bad index.

    Args:
        module: a model for the task.
        task: one of ours says how long its texts may be; of another's the example is looked at.
        example: a small batch of its inputs (N, L).

    Raises:
        ConfigError: texts may have more tokens than the module has positions for.
    """
    longest = getattr(task, "longest", {})
    for name, (key, what) in LIMITS.items():
        ids = [value for input_name, value in example.items() if input_name.startswith(name)]
        tokens = max([longest.get(key, 0), *(value.shape[1] for value in ids if value.ndim == 2)])
        limit = positions(module, decoder=name == DECODER_IDS if DECODER_IDS in example else None)
        if limit is not None and tokens > limit:
            problem = f"the task's {what} have up to {tokens} tokens, and the model has {limit} positions"
            fix = f"Set `{key}: {limit}` in the task; what is longer is then cut"
            if not longest:
                fix = f"Let the task cut its {what}, such as by `truncation=True, max_length={limit}` of the tokenizer"
            raise ConfigError(problem, fix=fix)
