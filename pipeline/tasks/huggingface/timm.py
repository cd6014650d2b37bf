"""Image models of timm: `model: {use: huggingface.timm, name: resnet18}`; the extra `timm` installs it.

The tests put a stand-in module in timm's place; timm itself has not been run.
"""

from pathlib import Path
from typing import Any

from torch import nn

from pipeline.base.batches import Inputs
from pipeline.base.code.extras import install
from pipeline.base.data.hub import check_reachable
from pipeline.base.use import Reference
from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from pipeline.task import Task
from pipeline.tasks.huggingface.pretrained import Start, classes_of, explained, fresh_note

NETWORK = "pipeline.tasks.huggingface.timm:network"
FILE = "model.safetensors"
READING = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
"""Arguments of timm's by which it reads files itself, pickles too."""


def network(name: str, **arguments: Any) -> nn.Module:
    """An untrained model of that name: images (N, C, H, W) -> logits (N, classes).

    Args:
        name: as `timm.list_models()` has it.
        arguments: of timm's `create_model`, such as `num_classes` and `in_chans`.

    Raises:
        ConfigError: timm is not installed, or an argument would have it read weights.
    """
    if ":" in name or (reads := READING & arguments.keys()):
        problem = f"`name` is {name}" if ":" in name else f"there is no key `{min(reads)}`"
        fix = "Give a name of timm.list_models(), and the weights by `pretrained:` or `weights:`"
        raise ConfigError(problem, fix=fix)
    try:
        import timm
    except ImportError as error:
        fix = install(extra="timm")
        raise ConfigError(f"the model {name} is timm's, and timm cannot be imported ({error})", fix=fix) from error
    module: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    return module


def model(
    task: Task, example: Inputs, name: str, pretrained: bool | str = True, labels: int | None = None, **arguments: Any
) -> Start:
    """A model of timm for a task of images; a rebuild of it reads no weights.

    Args:
        task: what it is for.
        example: a small batch of its inputs (N, C, H, W).
        name: as `timm.list_models()` has it.
        pretrained: the weights, safetensors alone: those that timm names on the hub, or of a repository or folder.
        labels: how many classes; those of the task unless given.
        arguments: of timm's `create_model`.

    Raises:
        ConfigError: timm is not installed, or the weights are not there or do not fit.
    """
    sizes = {"num_classes": classes_of(task, labels), "in_chans": next(iter(example.values())).shape[1]}
    builder = Reference(use=NETWORK, arguments={"name": name, **sizes, **arguments})
    torch_model = TorchModel.build(builder, example, task.axes)
    if pretrained is False:
        return Start(torch_model)
    pretrained_config = getattr(torch_model.module, "pretrained_cfg", None) or {}
    place = pretrained_config.get("hf_hub_id") if pretrained is True else pretrained
    if not place:
        fix = "Give `pretrained` a repository or a folder, or false"
        raise ConfigError(f"timm names no weights of {name} on the hub", fix=fix)
    fresh = _load(torch_model.module, str(place))
    return Start(torch_model, not fresh, fresh_note(str(place), fresh))


def _load(module: nn.Module, place: str) -> list[str]:
    """Load what fits of the weights; gives the names of those of the head, which stay as they are."""
    from huggingface_hub import hf_hub_download
    from safetensors.torch import load_file

    check_reachable(place, "models", "name")
    with explained(place):
        path = Path(place) / FILE if Path(place).is_dir() else Path(hf_hub_download(place, FILE))
        state = load_file(path)
    own = module.state_dict()
    find: Any = getattr(module, "get_classifier", None)
    head = find() if find else None
    names = [name for name, part in module.named_modules() if part is head and name]
    of_head = {key for key in own if key.startswith(tuple(f"{name}." for name in names))}
    unlike = sorted(key for key in own if key not in state or state[key].shape != own[key].shape)
    if wrong := [key for key in unlike if key not in of_head] + sorted(state.keys() - own.keys()):
        problem = f"{len(wrong)} weights do not fit, such as {wrong[0]}"
        fix = "Name the model that the weights are of, or set `pretrained: false`"
        raise ConfigError(problem, where=place, fix=fix)
    module.load_state_dict({**state, **{key: own[key] for key in unlike}})
    return unlike
