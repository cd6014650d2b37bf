"""A digest of all that an object is: values, and the code of classes and functions that no file of a config names.

Of a library's code the name counts, as its version does elsewhere; of users' code what it compiles to, wherever it was
written: a script, a notebook, a file. Line numbers, comments and the state of training do not count.
"""

import hashlib
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.base.code.places import is_users
from pipeline.base.data.split import Split
from pipeline.forms.weights import values_digest

PLAIN: tuple[type, ...] = (type(None), bool, int, float, complex, str, bytes, Enum, Path, range, slice, np.generic)
PLAIN += (torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format, re.Pattern)
OF_TRAINING = ("training", "_is_full_backward_hook")
NOT_OF_CODE = ("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__")


class Digest:
    """SHA-256 over objects that are added in turn.

    Of data the code counts alone: all examples have digests of their own.
    """

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.places: dict[int, int] = {}
        self.kept: list[Any] = []  # so that no other object gets the id of one that was made on the way
        self.opaque: set[str] = set()
        """Types of what nothing can be told of beyond the type."""

    def add(self, value: Any) -> "Digest":
        """Add an object with all that it holds; one that was added already counts by its place."""
        if isinstance(value, PLAIN):
            return self._say(type(value).__name__, repr(value))
        if id(value) in self.places:
            return self._say("again", str(self.places[id(value)]))
        self.places[id(value)] = len(self.places)
        self.kept.append(value)
        self._say(*_name(value))
        for part in self._parts(value):
            self.add(part)
        return self._say("end", "")

    def hexdigest(self) -> str:
        """In full length."""
        return self.hash.hexdigest()

    def _say(self, *words: str) -> "Digest":
        self.hash.update("".join(f"{len(word)}:{word}" for word in words).encode(errors="surrogatepass"))
        return self

    def _parts(self, value: Any) -> Iterable[Any]:
        """What there is to say of an object, beside its name."""
        if isinstance(value, set | frozenset):
            return [sorted(Digest().add(part).hexdigest() for part in value)]
        parts = next((parts for kind, parts in PARTS if isinstance(value, kind)), self._of_object)
        return parts(value)

    def _of_object(self, value: Any) -> Iterator[Any]:
        yield type(value)
        if isinstance(value, Dataset):
            yield _of_dataset(value)
            return
        held = _attributes(value)
        if held is None:
            try:
                yield value.__reduce_ex__(4)[1:3]  # as it would be copied: what C code holds
            except TypeError:
                self.opaque.add(f"{type(value).__module__}.{type(value).__qualname__}")
            return
        if isinstance(value, nn.Module):
            held = {name: part for name, part in held.items() if name not in OF_TRAINING}
        if isinstance(value, Split):
            held["dataset"] = type(value.dataset), _of_dataset(value.dataset)
        yield held


def _of_dataset(dataset: Any) -> dict[str, Any]:
    """What a dataset does to its examples: plain settings, functions, and the datasets that it is of."""
    parts = _attributes(dataset) or {}
    inner = {n: (type(p), _of_dataset(p)) for n, p in parts.items() if isinstance(p, Dataset)}
    return {n: part for n, part in parts.items() if isinstance(part, PLAIN) or callable(part)} | inner


def _attributes(value: Any) -> dict[str, Any] | None:
    """What an object of Python code holds by name; None for one of C code."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
    if not slots and not hasattr(value, "__dict__"):
        return None
    return {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots}}


def _name(value: Any) -> tuple[str, str]:
    """The kind of a value and, of what is imported from a library, its name there."""
    named = value if isinstance(value, type | FunctionType | BuiltinFunctionType) else type(value)
    if isinstance(value, CodeType | ModuleType) or _is_users(named):
        return type(value).__name__, getattr(named, "__qualname__", "")
    return type(value).__name__, f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"


def _is_users(named: Any) -> bool:
    """Whether a class or function is of users' code, also of what was typed in and lies in no file."""
    if isinstance(named, FunctionType):
        file = named.__code__.co_filename
        return is_users(file) or (file.startswith("<") and _is_users_module(named.__module__))
    return _is_users_module(getattr(named, "__module__", None))


def _is_users_module(name: str | None) -> bool:
    top = str(name).partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return False
    module = sys.modules.get(str(name))
    file = getattr(module, "__file__", None)
    return is_users(str(Path(file).absolute())) if file else top == "__main__"


def _of_function(function: FunctionType) -> Iterator[Any]:
    if not _is_users(function):
        return
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that has no value yet
            yield "empty"
    names = _names(function.__code__)
    for name in names:
        if name in function.__globals__:
            yield from _reached(name, function.__globals__[name], names)
        elif _is_users_module(name):  # imported inside the function
            yield from _reached(name, sys.modules.get(name), names)


def _reached(name: str, value: Any, names: Sequence[str]) -> Iterator[Any]:
    """What code reaches by a name: of a user's module what it asks it for, as it is in memory and not on disk."""
    yield name
    if isinstance(value, ModuleType) and _is_users_module(value.__name__):
        for inner in names:
            if inner in vars(value) and vars(value)[inner] is not value:
                yield from _reached(inner, vars(value)[inner], [n for n in names if n != inner])
    else:
        yield value


def _of_class(kind: type) -> Iterator[Any]:
    if _is_users(kind):
        yield kind.__bases__
        yield {name: value for name, value in vars(kind).items() if name not in NOT_OF_CODE and not _is_slot(value)}


def _names(code: CodeType) -> list[str]:
    """The names that code reads, and that the code inside it does."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return [*dict.fromkeys([*code.co_names, *inner])]


def _of_array(array: Any) -> Iterator[Any]:
    yield from (str(array.dtype), array.shape, array.tolist() if array.dtype == object else array.tobytes())


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [name for name in ([slots] if isinstance(slots, str) else slots) if name not in ("__dict__", "__weakref__")]


def _is_slot(value: Any) -> bool:
    return type(value).__name__ in ("member_descriptor", "getset_descriptor", "_abc_data")


PARTS: tuple[tuple[Any, Callable[[Any], Iterable[Any]]], ...] = (
    (Tensor, lambda t: (values_digest([("", t)]), isinstance(t, nn.Parameter) and t.requires_grad)),
    (np.ndarray, _of_array),
    (Mapping, lambda mapping: (part for item in mapping.items() for part in item)),
    ((list, tuple), iter),
    (partial, lambda function: (function.func, function.args, function.keywords)),
    (MethodType, lambda method: (method.__self__, method.__func__)),
    (FunctionType, _of_function),
    (type, _of_class),
    (ModuleType, lambda module: (module.__name__,)),
    (logging.Logger, lambda logger: (logger.name,)),
    (CodeType, lambda code: (code.co_code, code.co_names, code.co_varnames, code.co_consts)),
    (property, lambda value: (value.fget, value.fset, value.fdel)),
    ((staticmethod, classmethod), lambda method: (method.__func__,)),
    (BuiltinFunctionType, lambda function: ()),
)
"""Kinds of values, and what there is to say of one; of any other its type and its attributes."""
