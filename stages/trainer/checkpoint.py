"""Checkpoints of a training that can go on as if nothing had happened: safetensors and JSON, nothing pickled."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from pipeline.base.files import whole, whole_folder

STATE = "state.json"


def save(folder: Path, origin: str, module: nn.Module, optimizer: Any, schedule: Any, progress: dict[str, Any]) -> None:
    """Write a checkpoint beside the earlier one, and then remove that.

    Args:
        folder: holds numbered checkpoints.
        origin: says which training this is; `restore` wants the same.
        module, optimizer, schedule: whose state is kept, with that of all random generators.
        progress: JSON; where the training is.
    """
    numbers = _numbers(folder)
    number = max(numbers, default=0) + 1
    temporary, target = folder / f"tmp-{number}", folder / f"checkpoint-{number}"
    shutil.rmtree(temporary, ignore_errors=True)
    with whole_folder(target, temporary):
        save_model(module, str(temporary / "model.safetensors"))
        tensors, plain = _split(optimizer.state_dict())
        tensors["generator.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["generator.cuda"] = torch.cuda.get_rng_state()
        save_file(tensors, temporary / "tensors.safetensors")
        name, keys, *rest = np.random.get_state(legacy=True)
        state = {
            "origin": origin,
            "optimizer": plain,
            "schedule": schedule.state_dict(),
            "python": random.getstate(),
            "numpy": [name, np.asarray(keys).tolist(), *rest],
            "progress": progress,
        }
        (temporary / STATE).write_text(json.dumps(state))
    for old in numbers:
        shutil.rmtree(folder / f"checkpoint-{old}")


def restore(folder: Path, origin: str, module: nn.Module, optimizer: Any, schedule: Any) -> dict[str, Any] | None:
    """Put everything back to where the newest checkpoint was; gives its progress, None where this training has none."""
    numbers = _numbers(folder)
    if not numbers:
        return None
    place = folder / f"checkpoint-{max(numbers)}"
    state = json.loads((place / STATE).read_text())
    if state["origin"] != origin:
        return None
    tensors = load_file(place / "tensors.safetensors")
    load_model(module, str(place / "model.safetensors"))
    optimizer.load_state_dict(_join(tensors, state["optimizer"]))
    schedule.load_state_dict(state["schedule"])
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["generator.cpu"])
    if torch.cuda.is_available() and "generator.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["generator.cuda"])
    return dict(state["progress"])


def keep(module: nn.Module, path: Path) -> None:
    """Write the weights of a module to a file, whole or not at all."""
    with whole(path) as temporary:
        save_model(module, str(temporary))


def _numbers(folder: Path) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*")]


def _split(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by "optimizer.PARAMETER.NAME" and the rest."""
    tensors = {
        f"optimizer.{index}.{name}": value.contiguous()
        for index, values in state["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    rest = {
        str(index): {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        for index, values in state["state"].items()
    }
    return tensors, {"state": rest, "param_groups": state["param_groups"]}


def _join(tensors: dict[str, Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in plain["state"].items()}
    for key, value in tensors.items():
        owner, _, rest = key.partition(".")
        if owner == "optimizer":
            index, _, name = rest.partition(".")
            state[int(index)][name] = value
    return {"state": state, "param_groups": plain["param_groups"]}
