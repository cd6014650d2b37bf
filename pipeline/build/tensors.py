"""The tensors that a task's functions hold, wherever they come from: no one else sees a file that C code reads."""

from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.base.code.places import is_users
from pipeline.forms.weights import values_digest
from pipeline.task import Split, Task


def tensor_digests(task: Task) -> dict[str, str]:
    """SHA-256 of the tensors and arrays that each function of a task holds, by its name; of those that hold some.

    They are looked for in arguments of partial functions, closures, defaults, globals that users' functions name, and
    attributes of users' objects. Data are left out: their digests are of all examples.
    """
    functions: dict[str, Any] = {"loss": task.loss, "score": task.score, "decode": task.decode, "augment": task.augment}
    functions |= {f"metrics.{name}": metric for name, metric in task.metrics.items()}
    digests = dict[str, str]()
    for name, function in functions.items():
        tensors = list(_held(function, set()))
        if tensors:
            digests[name] = values_digest(("", tensor) for tensor in tensors)
    return digests


def _held(value: Any, known: set[int]) -> Iterator[Tensor]:
    """The tensors that a value holds, in the order in which it names them."""
    if id(value) in known or isinstance(value, Split | Dataset | type):
        return
    known.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield torch.from_numpy(np.frombuffer(value.tobytes(), np.uint8).copy())
    else:
        for inner in _parts(value):
            yield from _held(inner, known)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, nn.Module):
        return list(value.state_dict().values())
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        return _parts_of_function(value) if is_users(value.__code__.co_filename) else []
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    attributes = list(getattr(value, "__dict__", {}).values())
    if is_dataclass(value):
        return attributes
    kind = type(value)
    defined = next((f.__code__ for f in vars(kind).values() if isinstance(f, FunctionType)), None)
    is_of_user = defined is not None and is_users(defined.co_filename)
    return [*attributes, kind.__call__] if is_of_user else []


def _parts_of_function(function: FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    named = [function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__]
    return [*cells, function.__defaults__, function.__kwdefaults__, *named]


def _names(code: CodeType) -> list[str]:
    """The names that a function reads, and those of the functions inside it."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return [*code.co_names, *inner]


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a variable that has no value yet
        return False
