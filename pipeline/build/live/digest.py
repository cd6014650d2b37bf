"""A digest of all that an object is: values, and the code of classes and functions that no file of a config names.

Of a library's code the name counts, as its version does elsewhere; of users' code what it compiles to, wherever it was
written: a script, a notebook, a file. Line numbers, comments and the state of training do not count.
"""

import copy
import copyreg
import hashlib
import logging
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from pickle import PickleError
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.base.data.split import Split
from pipeline.build.live.code import is_users_own, of_class, of_code, of_function, of_method
from pipeline.forms.weights import values_digest

PLAIN = {type(None), bool, int, float, complex, str, bytes, range, slice, re.Pattern}
PLAIN |= {torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format}
PLAIN_OF_LIBRARIES = (Enum, Path, np.generic)
COMPILED = "_torchdynamo_orig_callable"  # what a function of torch.compile is of, beside all that compiles it
LOCKS = (type(threading.Lock()), type(threading.RLock()))
OF_TRAINING = ("training", "_is_full_backward_hook")


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
        if _is_plain(value):
            return self._say(type(value).__name__, repr(value))
        if isinstance(value, FunctionType):
            value = vars(value).get(COMPILED, value)
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

    def _parts(self, value: Any) -> Iterator[Any]:
        """What there is to say of an object, beside its name."""
        if whole := WHOLE.get(type(value)):
            yield from whole(value)
            return
        yield type(value)
        if isinstance(value, set | frozenset):
            yield sorted(self._apart(part) for part in value)
        elif parts := next((parts for kind, parts in KINDS if isinstance(value, kind)), None):
            yield from parts(value)
        else:
            yield from self._of_object(value)
            return
        if not isinstance(value, type | ModuleType | logging.Logger):
            yield _attributes(value)

    def _of_object(self, value: Any) -> Iterator[Any]:
        if isinstance(value, Dataset):
            yield _of_dataset(value)
            return
        held = _attributes(value)
        if isinstance(value, nn.Module):
            held = {name: part for name, part in held.items() if name not in OF_TRAINING}
        if isinstance(value, Split):
            held["dataset"] = type(value.dataset), _of_dataset(value.dataset)
        yield held
        if not isinstance(value, nn.Module | Split | BaseModel):
            yield from self._reduced(value)

    def _reduced(self, value: Any) -> Iterator[Any]:
        """What a copy would be made of, for that has also what C code holds."""
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            reduced: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        except (TypeError, ValueError, RuntimeError, PickleError):
            self.opaque.add(f"{type(value).__module__}.{type(value).__qualname__}")
            return
        yield reduced if isinstance(reduced, str) else [list(p) if isinstance(p, Iterator) else p for p in reduced]

    def _apart(self, value: Any) -> str:
        """The digest of one of several that have no order; what is around them counts by its place."""
        inner = copy.copy(self)
        inner.hash = hashlib.sha256()
        if not _is_plain(value):
            inner.places = dict(self.places)
        return inner.add(value).hexdigest()


def _is_plain(value: Any) -> bool:
    """Whether its type and its text say all."""
    return type(value) in PLAIN or (isinstance(value, PLAIN_OF_LIBRARIES) and not is_users_own(type(value)))


def _of_dataset(dataset: Any) -> dict[str, Any]:
    """What a dataset does to its examples: plain settings, functions, and the datasets that it is of."""
    parts = _attributes(dataset)
    inner = {n: (type(p), _of_dataset(p)) for n, p in parts.items() if isinstance(p, Dataset)}
    return {n: part for n, part in parts.items() if _is_plain(part) or callable(part)} | inner


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds by name."""
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return fields | (value.__pydantic_extra__ or {}) | (value.__pydantic_private__ or {})
    slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
    return {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots}}


def _name(value: Any) -> tuple[str, str]:
    """The kind of a value and, of what is imported from a library, its name there."""
    named = value if isinstance(value, type | FunctionType | BuiltinFunctionType) else type(value)
    if isinstance(value, CodeType | ModuleType) or is_users_own(named):
        return type(value).__name__, getattr(named, "__qualname__", "")
    return type(value).__name__, f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"


def _of_tensor(tensor: Tensor) -> Iterator[Any]:
    yield from (values_digest([("", tensor)]), isinstance(tensor, nn.Parameter) and tensor.requires_grad)


def _of_array(array: Any) -> Iterator[Any]:
    yield from (str(array.dtype), array.shape, array.tolist() if array.dtype.hasobject else array.tobytes())


def _of_mapping(mapping: Any) -> Iterator[Any]:
    return (part for item in mapping.items() for part in item)


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [name for name in ([slots] if isinstance(slots, str) else slots) if name not in ("__dict__", "__weakref__")]


WHOLE: dict[type, Callable[[Any], Iterable[Any]]] = {
    dict: _of_mapping,
    MappingProxyType: _of_mapping,
    list: iter,
    tuple: iter,
    CodeType: of_code,
    weakref.ref: lambda reference: (reference(),),
    **dict.fromkeys(LOCKS, lambda lock: ()),
}
"""Types, and all that there is to say of one that is of no subclass."""

KINDS: tuple[tuple[Any, Callable[[Any], Iterable[Any]]], ...] = (
    (Tensor, _of_tensor),
    (np.ndarray, _of_array),
    ((MethodType, BuiltinFunctionType), of_method),
    (FunctionType, of_function),
    (type, of_class),
    (ModuleType, lambda module: (module.__name__,)),
    (logging.Logger, lambda logger: (logger.name,)),
    (property, lambda value: (value.fget, value.fset, value.fdel)),
    ((staticmethod, classmethod), lambda method: (method.__func__,)),
)
"""Kinds of values, and what there is to say of one beside its type and attributes; of any other what a copy is of."""
