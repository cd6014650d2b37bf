"""`use:` names code: a module of ours, a file of the user's, or an attribute in either. No registry.

distill.logits            a module of the package that the key implies: `stages.distill.logits`, for a model or a task
                          `pipeline.tasks.huggingface`
my_stage.py               a file beside the pipeline file
models.py:SmallNet        an attribute of such a file
torch.nn:Linear           an attribute of an installed module
huggingface               a folder of ours stands for its file of the same name

Saved models hold such names of ours: `stages.prune.reshape:reshape`, `stages.prune.ranks.factors:factorized`,
`pipeline.tasks.huggingface.models:network`, `pipeline.tasks.huggingface.timm:network`, those of `LENT`, and those of
`MOVED`. They are part of the format of a saved model: where one of these functions moves, its old name goes into
`MOVED`.
"""

import difflib
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, model_validator

from pipeline.base.code.recorder import recorder
from pipeline.base.code.seen import Seen
from pipeline.base.files import folder_digest, scratch
from pipeline.errors import ConfigError, blame

MOVED = {
    "pipeline.translated:without_tokens": "pipeline.forms.text.remapped:without_tokens",
    "stages.layers:keep_layers": "stages.kd.inspection.layers:keep_layers",
}
"""Names that models saved by earlier versions hold, and where these functions are now."""

LENT = "pipeline.build.live.lent"
"""The module whose functions give what was given from Python as an object, in that process alone."""

SHARED = {"stages": ("kd", "layerwise", "trainer"), "pipeline.tasks": ("metrics", "tables")}
"""What stands in a package for its other modules, and no `use:` names."""


class Reference(BaseModel):
    """Names something callable and the arguments it is called with; in YAML `{use: models.py:Net, width: 16}`.

    Args:
        use: "file.py:name" relative to `folder`, or "installed.module:name".
        arguments: keyword arguments, JSON values.
        folder: where files are looked for; the pipeline file's folder. Not part of what is saved, so that a saved
            model can be moved together with its code.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    use: str
    arguments: dict[str, JsonValue] = {}
    folder: Path = Field(default=Path(), exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: Any, info: ValidationInfo) -> Any:
        """Every key that is not a field is an argument."""
        if isinstance(data, str):
            data = {"use": data}
        elif isinstance(data, Reference) and not isinstance(data, cls):
            data = {"use": data.use, "arguments": data.arguments, "folder": data.folder}
        if not isinstance(data, dict):
            return data
        field_names = cls.model_fields.keys() - ({"folder"} if info.context else set())
        fields = {key: value for key, value in data.items() if key in field_names}
        rest = {key: value for key, value in data.items() if key not in field_names}
        context_fields = {"folder": info.context["folder"]} if info.context else {}
        arguments = fields.get("arguments", {})
        if not isinstance(arguments, dict):
            raise ValueError(f"a mapping of arguments, not {arguments!r}")
        use = fields.get("use")
        present = {"use": MOVED.get(use, use)} if isinstance(use, str) else {}
        return fields | present | context_fields | {"arguments": arguments | rest}

    @property
    def label(self) -> str:
        """Tells the code and all its arguments apart from others in this process."""
        return f"{self.folder.resolve()} {self.model_dump_json()}"

    @property
    def is_lent(self) -> bool:
        """Whether it names an object that was given from Python, which no other process can build."""
        return self.use.startswith(f"{LENT}:")

    def files(self) -> list[Path]:
        """Files below `folder` whose content counts beside the code, such as weights."""
        return []

    def resolve(self) -> Any:
        """What is named. Raises ConfigError when there is no such file, module or attribute, or it fails on import."""
        with blame(ConfigError, f"use: {self.use}"):
            return find(self.use, self.folder)

    def call(self, *args: Any) -> Any:
        """Call what is named with `args` and the arguments; a failure says which `use:` it was."""
        with blame(ConfigError, f"use: {self.use}"), recorder().watch(self.label):
            target = self.resolve()
            if not callable(target):
                expected = f"a function or a class, such as {self.use}:net" if ":" not in self.use else "one to call"
                raise ConfigError(f"it names a {type(target).__name__}", expected=expected)
            return target(*args, **self.arguments)


def reading(builder: Reference) -> Seen:
    """What a builder reads; it is called where it has not been yet."""
    if builder.label not in recorder().remembered:
        builder.call()
    return recorder().remembered[builder.label]


def find(use: str, folder: Path, package: str = "", attribute: str = "") -> Any:
    """What `use` names.

    Args:
        use: see the top of this file.
        folder: where user files are looked for.
        package: what a bare dotted name is relative to, such as "stages".
        attribute: the attribute that is meant where `use` names none; without it the module itself.

    Raises:
        ConfigError: nothing of that name, or the module raised on import.
    """
    name, _, attribute_name = use.partition(":")
    attribute_name = attribute_name or attribute
    if name.endswith(".py"):
        module = import_file(folder / name)
    else:
        module = import_module(f"{package}.{name}" if package and ":" not in use else name, use, package)
        if package and ":" not in use and hasattr(module, "__path__"):
            module = import_module(f"{module.__name__}.{name.rpartition('.')[2]}", use, package)
    if not attribute_name:
        return module
    if not hasattr(module, attribute_name):
        names = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"`{name}` has no `{attribute_name}`{nearest(attribute_name, names)}")
    return getattr(module, attribute_name)


def is_built_in(use: str) -> bool:
    """Whether it is the bare name of a module, which is relative to the package that its key implies."""
    return ":" not in use and not use.endswith(".py")


def import_module(name: str, use: str, package: str = "") -> ModuleType:
    """Import an installed module; what is missing inside it is told apart from its being missing itself."""
    with blame(ConfigError, f"use: {use}", fix="Install what is missing or correct the name"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name + ".").startswith(error.name + "."):
                raise
    hint = nearest(use, built_in(package)) if package else ""
    raise ConfigError(f"there is no module `{name}`{hint}", fix="A file of your own ends in .py")


def import_file(path: Path) -> ModuleType:
    """Import a user's file under a name with its folder's digest, so that two `models.py` do not collide.

    The folder is reached through a symbolic link in a directory on `sys.path`: `from .helpers import x` works in the
    file, and so do spawned workers, which inherit `sys.path`.
    """
    path = path.resolve()
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise ConfigError(f"there is no file {path}{nearest(path.name, beside)}")
    name = recorder().held_as(path.parent, lambda: _package(path.parent))
    links = _links(os.getpid())
    if str(links) not in sys.path:  # whoever puts a path of theirs back takes it away
        sys.path.append(str(links))
    link = links / name
    if not link.is_symlink():
        with suppress(FileExistsError):  # another thread was faster
            link.symlink_to(path.parent, target_is_directory=True)
        importlib.invalidate_caches()
    if "." in path.stem:
        raise ConfigError(f"a module cannot be called `{path.stem}`", fix="Leave out the dots in the file's name")
    with (
        blame(ConfigError, f"use: {path.name}", fix="The file must import without errors"),
        recorder().watch(f"import {path} as {name}"),
    ):
        try:
            return importlib.import_module(f"{name}.{path.stem}")
        except ModuleNotFoundError as error:
            if error.name and (path.parent / f"{error.name}.py").is_file():
                fix = f"Write `from .{error.name} import ...` for a file beside it"
                raise ConfigError(f"there is no module `{error.name}`", fix=fix) from None
            raise


def _package(folder: Path) -> str:
    digest = hashlib.sha256(f"{folder} {folder_digest(folder, '*.py')}".encode())
    return f"user_{digest.hexdigest()[:16]}"


def built_in(package: str) -> list[str]:
    """Dotted names of the modules in `package` that `use:` can name, found without importing them."""
    spec = importlib.util.find_spec(package)
    folders, names = list(spec.submodule_search_locations or []) if spec else [], []
    for module in pkgutil.iter_modules(folders):
        if module.name in SHARED.get(package, ()):
            continue
        inner = [str(Path(p) / module.name) for p in folders]
        files = [m.name for m in pkgutil.iter_modules(inner) if not m.ispkg] if module.ispkg else []
        names += [module.name if name == module.name else f"{module.name}.{name}" for name in files or [module.name]]
    return sorted(names)


def classes_in(module: ModuleType, base: type) -> list[Any]:
    """The subclasses of `base` that a module defines itself."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    return [value for value in classes if issubclass(value, base) and value.__module__ == module.__name__]


def nearest(word: str, known: list[str]) -> str:
    """A hint for messages: the nearest known names, or all of them where none is near."""
    if close := difflib.get_close_matches(word, known, n=3, cutoff=0.5):
        return f"; did you mean {' or '.join(f'`{c}`' for c in close)}?"
    return f"; there are {', '.join(f'`{k}`' for k in sorted(known)[:12])}" if known else ""


@cache
def _links(_: int) -> Path:
    """One folder a process."""
    directory = scratch() / "code"
    directory.mkdir()
    return directory
