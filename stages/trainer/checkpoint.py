"""Checkpoints of a training that can go on as if nothing had happened: safetensors and JSON, nothing pickled.

Each has the digests of its files, and the one before the newest stays. A damaged one is left out, with a warning, and
the training goes on from the one before it or from its start, to the same weights.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from pipeline.base.files import file_digest, files_below, whole, whole_folder
from pipeline.errors import StageError
from pipeline.forms.weights import values_digest

STATE, DIGESTS, BEST = "state.json", "digests.json", "best.safetensors"


def save(folder: Path, origin: str, module: nn.Module, optimizer: Any, schedule: Any, progress: dict[str, Any]) -> None:
    """Write a checkpoint beside the earlier one, and remove those before that.

    Args:
        folder: holds numbered checkpoints.
        origin: says which training this is; `newest` wants the same.
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
        digests = {file.name: file_digest(file) for file in files_below(temporary)}
        (temporary / DIGESTS).write_text(json.dumps(digests))
    for old in numbers[:-1]:
        _remove(folder / f"checkpoint-{old}")


def newest(folder: Path, origin: str, warn: Callable[[str], None]) -> int | None:
    """The number of the newest checkpoint that is whole; None where there is none, or it is of another training.

    Those that are damaged are removed, and each is told to `warn`.
    """
    best = damage_of_best(folder / BEST, origin)
    for number in reversed(_numbers(folder)):
        place = folder / f"checkpoint-{number}"
        problem = _damage(place)
        if not problem:
            state = json.loads((place / STATE).read_text())
            if state["origin"] != origin:
                return None
            if state["progress"].get("best_epoch", -1) < 0 or not best:
                return number
            problem = best
        _remove(place)
        warn(
            f"{folder.name}: {place.name} is left out, {problem}; it goes on from the one before it, or from its start"
        )
    return None


def restore(folder: Path, number: int, module: nn.Module, optimizer: Any, schedule: Any) -> dict[str, Any]:
    """Put everything back to where a checkpoint was, which is whole; gives its progress."""
    place = folder / f"checkpoint-{number}"
    state = json.loads((place / STATE).read_text())
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


def keep(module: nn.Module, folder: Path, origin: str) -> None:
    """Write the best weights of a training, whole or not at all, with their digest and the training's origin inside."""
    with whole(folder / BEST) as temporary:
        save_model(module, str(temporary))  # tied ones once
        tensors = load_file(temporary)
        save_file(tensors, temporary, metadata={"digest": values_digest(sorted(tensors.items())), "origin": origin})


def load_best(module: nn.Module, folder: Path, origin: str) -> None:
    """Give a module the best weights of a training. Raises StageError where they are damaged."""
    if problem := damage_of_best(folder / BEST, origin):
        fix = "`shrink resume` goes on, or trains again"
        raise StageError(problem, where=str(folder), fix=fix)
    load_model(module, str(folder / BEST))


def damage_of_best(file: Path, origin: str) -> str:
    """What is wrong with the best weights, as a clause; empty where they are what was written."""
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
        whole_file = metadata == {"digest": values_digest(sorted(load_file(file).items())), "origin": origin}
    except (OSError, ValueError, SafetensorError) as error:
        return f"since {BEST} cannot be read ({error})"
    return "" if whole_file else f"since {BEST} is not what was written"


def _damage(place: Path) -> str:
    try:
        expected = json.loads((place / DIGESTS).read_text())
        digests = {file.name: file_digest(file) for file in files_below(place) if file.name != DIGESTS}
    except (OSError, ValueError) as error:
        return f"since it cannot be read ({error})"
    return "" if digests == expected else "since its files are not what was written"


def _numbers(folder: Path) -> list[int]:
    names = [path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")]
    return sorted(int(name) for name in names if name.isdecimal())


def _remove(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    if place.is_file():
        place.unlink()


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
