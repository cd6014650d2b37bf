"""A user's weights -> the module that they belong to: from files of many kinds, and with names wrapped in many ways."""

import argparse
import hashlib
import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.base.files import file_digest
from pipeline.base.formatting import few
from pipeline.base.use import nearest
from pipeline.errors import ConfigError, blame, is_exhausted
from pipeline.forms.state_dicts import BUILDER, fill, unwrapped

INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")
SAFE = "Save module.state_dict() instead"
AGAIN = "Get the file again, or save it again"
UNSAFE = f"{SAFE}; or, where you trust who made it, do both: give its sha256 in `model:`, and --allow-unsafe-load"

PROGRAMS = {
    "constants.pkl": ("it is a TorchScript archive", "torch.jit.load({}).state_dict()"),
    "archive_format": ("it is a program that torch.export saved", "torch.export.load({}).state_dict"),
}
"""By an entry of their archive what is no state dict and has one, and how to get it."""

Read = Callable[[Path], dict[str, Tensor]]


class UnsafeError(ConfigError):
    """The weights are more than tensors: a run needs their sha256 and --allow-unsafe-load."""


def load_weights(
    module: nn.Module, path: Path, *, sha256: str | None = None, allow_unsafe_load: bool = False
) -> list[str]:
    """Load a state dict into a module that was just built; code in the file is never run unless that is allowed.

    Args:
        module: it is changed in place.
        path: .safetensors; what torch.save wrote; an index.json of several such files; or a folder of Hugging Face.
        sha256: of the file, in hex; it is compared before the file is opened.
        allow_unsafe_load: unpickle what is more than tensors, which runs code of the file's; it needs the sha256 too.

    Returns:
        What there is to say of it, warnings and `Note`s.

    Raises:
        ConfigError: there is no such file, it is another than its sha256 says, it holds more than tensors, or its keys,
            shapes or types do not fit.
    """
    where = f"model weights {path}"
    messages: list[str] = []
    with blame(ConfigError, where, fix=BUILDER):
        file = _file(path)
        if sha256:
            verify(file, sha256)
        state = _read(file, sha256 if allow_unsafe_load else None, messages)
        fill(module, unwrapped(state, module, messages), messages)
    return [type(text)(f"{where}: {text}") for text in messages]


def state_digest(module: nn.Module) -> str:
    """SHA-256 over a module's state dict; see `values_digest`."""
    return values_digest((name, value) for name, value in module.state_dict().items() if isinstance(value, Tensor))


def values_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over the names, types, shapes and values of tensors in turn, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in tensors:
        dense = value.detach().cpu() if value.layout is torch.strided else value.detach().cpu().to_dense()
        content: Any = dense.contiguous().flatten().view(torch.uint8).numpy()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(content)
    return digest.hexdigest()


def check_weights(path: Path, *, sha256: str | None = None) -> None:
    """Check that `load_weights` would find a state dict; whether that fits a module is not looked at.

    No code of the file's is run. Of .safetensors the header and the size are read, not the tensors.

    Args:
        path, sha256: as for `load_weights`.

    Raises:
        UnsafeError: it holds more than tensors, or is damaged.
        ConfigError: there is no such file, it is another than its sha256 says, is damaged, or holds no state dict.
    """
    with blame(ConfigError, f"model weights {path}", fix=AGAIN):
        file = _file(path)
        if sha256:
            verify(file, sha256)
        unwrapped(_read(file, None, [], _shapes))


def files_at(path: Path) -> list[Path]:
    """The files that the weights at a path are in, such as all that an index.json names."""
    file = _file(path)
    if not file.name.endswith(".index.json"):
        return [file]
    return [file, *(file.parent / name for name in dict.fromkeys(_places(file).values()))]


def _file(path: Path) -> Path:
    """The file that is meant by a path: itself, or in a folder the one that tells of its weights."""
    if path.is_dir():
        names = [name for name in (WHOLE[0], INDICES[0], WHOLE[1], INDICES[1]) if (path / name).is_file()]
        if not names:
            raise ConfigError("there are no weights in this folder", expected=f"one of {', '.join((*WHOLE, *INDICES))}")
        return path / names[0]
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        raise ConfigError(f"there is no such file{nearest(path.name, beside)}")
    return path


def verify(file: Path, sha256: str) -> None:
    """Raise ConfigError where a file is another than its digest says, before anything opens it as what it is."""
    if file.suffix == ".json":
        raise ConfigError("`sha256` is of one file, and the weights are in several", fix="Leave `sha256` out")
    _compare(file_digest(file), sha256)


def _compare(digest: str, sha256: str) -> None:
    if digest != sha256.lower():
        fix = "Get the file again, or ask who has it"
        raise ConfigError(f"its sha256 is {digest}", expected=sha256.lower(), fix=fix)


def _read(file: Path, trusted: str | None, warnings: list[str], read: Read = load_file) -> Any:
    """What a file holds; with all that a pickle names where its digest is the one that is trusted.

    Args:
        file: of any kind.
        trusted: digest of a pickle that may be run; None for none.
        warnings: gets a warning where one was.
        read: gives the tensors of a file of safetensors.
    """
    if file.suffix == ".json":
        return _shards(file, read)
    if file.suffix == ".safetensors":
        return _safetensors(file, read)
    try:
        return _tensors(file)
    except pickle.UnpicklingError as error:
        if trusted is None:
            raise UnsafeError("it holds more than tensors, or is damaged", fix=UNSAFE) from error
    content = file.read_bytes()
    _compare(hashlib.sha256(content).hexdigest(), trusted)  # of these very bytes
    warnings.append("it was unpickled, as --allow-unsafe-load says: code that it names was run")
    # It finds the modules that lie beside it, as it did where it was made.
    with patch.object(sys, "path", [str(file.parent.resolve()), *sys.path]):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)


def _safetensors(file: Path, read: Read) -> dict[str, Tensor]:
    try:
        return read(file)
    except SafetensorError as error:
        raise ConfigError(f"it is damaged, or no file of safetensors: {error}", fix=AGAIN) from error


def _shapes(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of safetensors without their values: its header, which is compared with its size."""
    with safe_open(file, "pt") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118  # no mapping
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _tensors(file: Path) -> Any:
    """What torch.save wrote. Raises UnpicklingError for what is more than tensors, ConfigError for another file."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain settings, as training scripts keep them
            return torch.load(file, map_location="cpu", weights_only=True)
    except (EOFError, KeyError, RuntimeError) as error:
        if is_exhausted(error):
            raise
        _refuse_programs(file)
        raise ConfigError("it is damaged, or no file that torch.save wrote", fix=AGAIN) from error


def _refuse_programs(file: Path) -> None:
    """Raise ConfigError where a file is a program with weights, which is another form than a state dict."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        entries = {name.partition("/")[2] for name in archive.namelist()}
    for entry, (problem, source) in PROGRAMS.items():
        if entry in entries:
            fix = f"Save its weights: torch.save({source.format(repr(file.name))}, 'weights.pt')"
            raise ConfigError(problem, expected="a state dict", fix=fix)


def _places(index: Path) -> dict[str, str]:
    """For each tensor the file that has it, as an index.json of Hugging Face says."""
    try:
        return TypeAdapter(dict[str, str]).validate_python(json.loads(index.read_text())["weight_map"])
    except (ValueError, TypeError, KeyError) as error:
        expected = '{"weight_map": {"tensor": "file", ...}}'
        raise ConfigError(f"{index.name} is no index of weights", expected=expected, fix=AGAIN) from error


def _shards(index: Path, read: Read) -> dict[str, Tensor]:
    """The tensors of all files that an index.json of Hugging Face names."""
    names = _places(index)
    state: dict[str, Tensor] = {}
    for name in dict.fromkeys(names.values()):
        if Path(name).name != name:
            raise ConfigError(f"{index.name} names `{name}`", expected="files beside it")
        try:
            file = _file(index.parent / name)
            state |= _safetensors(file, read) if file.suffix == ".safetensors" else _tensors(file)
        except pickle.UnpicklingError as error:
            raise ConfigError(f"{name} holds more than tensors, or is damaged", fix=SAFE) from error
        except ConfigError as error:
            error.found = f"{name}: {error.found}"  # which of the files
            raise
    if lost := [name for name in names if name not in state]:
        raise ConfigError(f"{index.name} names tensors that none of its files has: {few(lost)}", fix="Get all of them")
    return state
