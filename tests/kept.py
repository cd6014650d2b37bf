"""What takes the tests long and always comes out the same, kept: exported graphs, the exporter's registry, tables."""

import copy
import hashlib
import inspect
import os
import pickle
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from pipeline import deploy
from pipeline.model import TorchModel

_export = deploy._export
_registry = ONNXRegistry.from_torchlib


class Kept:
    """Where all processes of a session keep things; `on` is off for a test that is marked `anew`."""

    folder: Path | None = None
    on = True

    @classmethod
    def place(cls) -> Path | None:
        return cls.folder if cls.on else None


def install(folder: Path | None) -> None:
    """Let exports and MLflow's tables come from this folder where they were made before."""
    Kept.folder = folder
    deploy._export = export  # type: ignore[assignment]
    ONNXRegistry.from_torchlib = staticmethod(registry)  # type: ignore[assignment, method-assign]


def export(model: TorchModel, opset: int) -> onnx.ModelProto:
    """What torch's exporter makes of a module, from the file that it made of an equal one."""
    place = Kept.place()
    key = _key(model, opset) if place else None
    if not place or not key:
        return _export(model, opset)
    file = place / f"{key}.onnx"
    if not file.exists():
        _write(file, _export(model, opset).SerializeToString())
    return onnx.load_model_from_string(file.read_bytes())


def registry(*args: Any, **kwargs: Any) -> ONNXRegistry:
    """The operators of torch's exporter, which reads the source of all of them anew for each export."""
    kept = copy.copy(_read(*args, **kwargs))
    kept.functions = {name: list(functions) for name, functions in kept.functions.items()}
    return kept


_read = cache(_registry)


def keep_tables() -> None:
    """Copy MLflow's tables into an empty SQLite file, in place of its forty migrations."""
    utils = sys.modules.get("mlflow.store.db.utils")
    if utils is None or getattr(utils._initialize_tables, "kept", False):
        return
    make: Callable[[Any], None] = utils._initialize_tables

    def tables(engine: Any) -> None:
        place = Kept.place()
        if not place or not engine.url.database or utils.sqlalchemy.inspect(engine).get_table_names():
            make(engine)
            return
        file = place / "tables.db"
        if file.exists():
            with closing(sqlite3.connect(file)) as source, closing(engine.raw_connection()) as target:
                source.backup(target.driver_connection)
        else:
            make(engine)
            engine.dispose()
            _write(file, Path(engine.url.database).read_bytes())

    tables.kept = True  # type: ignore[attr-defined]
    utils._initialize_tables = tables


def _write(file: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as whole:
        whole.write(content)
    os.replace(whole.name, file)


def _key(model: TorchModel, opset: int) -> str | None:
    """A digest of all that an export depends on; None where the module has what cannot be written down."""
    sha, seen = hashlib.sha256(), dict[int, int]()
    tensors = chain(
        model.module.named_parameters(remove_duplicate=False),
        model.module.named_buffers(remove_duplicate=False),
        model.example.items(),
    )
    for name, tensor in tensors:
        place = seen.setdefault(id(tensor), len(seen))  # of one tensor in two places the graph has one
        sha.update(repr((name, place, tensor.dtype, tensor.shape, tensor.requires_grad)).encode())
        sha.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    try:
        sha.update(pickle.dumps((opset, model.axes)))
        for name, module in model.module.named_modules(remove_duplicate=False):
            own = {k: v for k, v in vars(module).items() if k not in {"_parameters", "_buffers", "_modules"}}
            sha.update(pickle.dumps((name, seen.setdefault(id(module), len(seen)), own)))
            sha.update(_source(type(module)))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return sha.hexdigest()


def _source(kind: type[nn.Module]) -> bytes:
    """A class's name, and of one that is not a library's all files beside its own, for they may be imported."""
    file = Path(inspect.getfile(kind))
    if "site-packages" in file.parts:
        return f"{kind.__module__}.{kind.__qualname__}".encode()
    return b"".join([kind.__qualname__.encode(), *(path.read_bytes() for path in sorted(file.parent.glob("*.py")))])
