"""A pipeline file -> config: YAML, lines in errors, overrides, strict validation."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from pipeline.base.use import nearest
from pipeline.build.config import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.records.comparison import BASELINE

Path_ = tuple[str | int, ...]

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
MOST_NODES = 20_000
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
STRATEGY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ +-]*")
ANCHORS = "x-"
"""What keys begin with, at the top of a file, that are a place for anchors and nothing else."""
EXPECTED = {
    "dict_type": "a mapping, such as {min: 0.95}",
    "model_type": "a mapping, such as {use: export.onnx} or {min: 0.95}",
    "list_type": "a list, such as [1]",
    "tuple_type": "a list, such as [1]",
    "byte_size": "a size, such as 40 kB or 1 MiB",
    "byte_size_unit": "a size, such as 40 kB or 1 MiB",
}
"""What pydantic says in its own terms, by the type of the error."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: to PyYAML, which reads 1.1, 1e-3 is a string. A value that its tag does not fit has a line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """What a node stands for."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # such as of a date 2020-13-45
            problem = f"a value does not fit its tag {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, problem, node.start_mark) from None


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, [*"-+0123456789"])


class Source:
    """A parsed pipeline file with the line of every key, for errors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Path_, str] = {}
        text = _read(path)
        try:
            self._walk(_compose(text), ())
            self.data: Any = parse(text)
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{path}:{mark.line + 1}" if mark else str(path)
            problem = getattr(error, "problem", None) or str(error)
            fix = "Look at indentation and quotes"
            raise ConfigError(f"this is not YAML: {problem}", where=where, fix=fix) from None
        if not isinstance(self.data, dict):
            raise ConfigError("there is no pipeline in it", where=str(path), expected="the keys task, model and stages")

    def place(self, path: Path_) -> str:
        """Where a key is: "my.yaml:12", of the nearest key above where it is not in the file itself."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, str(self.path))

    def strategies(self) -> list[str]:
        """The names under `strategies:`; none in a file with `stages:`.

        Raises:
            ConfigError: there are both, or what stands there are no named lists.
        """
        if "strategies" not in self.data:
            return []
        where, named = self.place(("strategies",)), self.data["strategies"]
        if "stages" in self.data:
            raise ConfigError("there are both `stages` and `strategies`", where=where, fix="Keep one of them")
        if not isinstance(named, dict) or not named:
            raise ConfigError("`strategies` does not fit", where=where, expected="a name to each list of stages")
        for name in named:
            if not isinstance(name, str) or not STRATEGY.fullmatch(name) or name == BASELINE:
                fix = f"Use letters, digits, spaces and + - _, and not `{BASELINE}`"
                raise ConfigError(f"`{name}` is no name of a strategy", where=where, fix=fix)
        return list(named)

    def choose(self, strategy: str | None) -> None:
        """Make the stages of a strategy those of the file."""
        names, where = self.strategies(), str(self.path)
        if strategy is None and names:
            fix = "Choose one with --strategy, or compare them: shrink compare"
            raise ConfigError(f"it has the strategies {', '.join(names)}", where=where, fix=fix)
        if strategy is None:
            return
        if not names:
            raise ConfigError("it has `stages`, not `strategies`", where=where, fix="Leave out --strategy")
        if strategy not in names:
            raise ConfigError(f"there is no strategy `{strategy}`{nearest(strategy, names)}", where=where)
        self.data["stages"] = self.data.pop("strategies")[strategy]
        at = ("strategies", strategy)
        chosen = {("stages", *key[2:]): line for key, line in self.lines.items() if key[:2] == at}
        self.lines = {key: line for key, line in self.lines.items() if key[0] != at[0]} | chosen

    def override(self, assignment: str) -> None:
        """Apply one `a.b.0.c=value`; the value is YAML."""
        keys, equals, text = assignment.partition("=")
        where = f"--set {assignment}"
        if keys.startswith(ANCHORS):
            problem = f"`{keys.partition('.')[0]}` holds anchors, and what refers to them would stay as it is"
            raise ConfigError(problem, where=where, fix="Name each place where it is used")
        if not equals or not keys:
            raise ConfigError("there is no value", where=where, expected="path=value, such as stages.1.temperature=2")
        path: Path_ = tuple(int(k) if k.isascii() and k.isdigit() else k for k in keys.split("."))
        target = self.data
        for i, key in enumerate(path[:-1]):
            if isinstance(target, dict) and key not in target and key in _fields(PipelineConfig, path[:i]):
                target[key] = {}  # a mapping that the file leaves out, such as budget
            target = _child(target, key, ".".join(map(str, path[:i])), where)
        last = path[-1]
        if isinstance(target, list):
            _child(target, last, ".".join(map(str, path[:-1])), where)
        elif not isinstance(target, dict):
            fix = "Name a key that has keys"
            raise ConfigError(f"`{keys.rpartition('.')[0]}` is not a mapping", where=where, fix=fix)
        try:
            self._walk(_compose(text), ())
            target[last] = parse(text)
        except (yaml.YAMLError, RecursionError) as error:
            problem = f"`{text}` is not YAML: {getattr(error, 'problem', None) or 'it is nested too deep'}"
            raise ConfigError(problem, where=where, fix="Quote it") from None
        self.lines = {key: line for key, line in self.lines.items() if key[: len(path)] != path} | {path: where}

    def _walk(self, node: yaml.Node | None, path: Path_) -> None:
        if isinstance(node, yaml.MappingNode):
            key_lines: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in key_lines and name != "<<":
                    problem = f"the key `{name}` stands here and in line {key_lines[name]}"
                    raise ConfigError(problem, where=f"{self.path}:{line}", fix="Keep one of them")
                key_lines[name] = line
                self.lines[(*path, name)] = f"{self.path}:{line}"
                self._walk(value, (*path, name))
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                self.lines[(*path, i)] = f"{self.path}:{value.start_mark.line + 1}"
                self._walk(value, (*path, i))


def load_config(
    path: Path, overrides: Sequence[str] = (), strategy: str | None = None
) -> tuple[PipelineConfig, Source]:
    """The config in a file, with overrides applied; of a file with `strategies:` that of one of them.

    Raises:
        ConfigError: it cannot be read, is not YAML, has a key or value that does not fit, or no such strategy.
    """
    source = Source(path)
    of_strategies = [assignment for assignment in overrides if assignment.startswith("strategies.")]
    for assignment in of_strategies:
        source.override(assignment)
    source.choose(strategy)
    for assignment in overrides:
        if assignment not in of_strategies:
            source.override(assignment)
    if "folder" in source.data:
        raise ConfigError("there is no key `folder`", where=source.place(("folder",)))
    folder = path.resolve().parent
    data = {key: value for key, value in source.data.items() if not str(key).startswith(ANCHORS)}
    data |= {"name": source.data.get("name") or path.stem, "folder": folder}
    if strategy is not None:
        data["name"] = f"{data['name']}-{slug(strategy)}"
    return validate(PipelineConfig, data, source, (), folder), source


def slug(strategy: str) -> str:
    """A strategy's name as part of a folder's: "distill + quantize" -> "distill-quantize"."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", strategy).strip("-")


def validate(model: type[BaseModel], data: Any, source: Source | None, at: Path_, folder: Path) -> Any:
    """`model` from `data`; the first problem becomes one ConfigError at its line, with the nearest valid key."""
    try:
        return model.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        # A misspelt key comes before the missing one that it was meant to be.
        problem = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        path: Path_ = (*at, *_real(problem["loc"], data))
        where = source.place(path) if source else ".".join(map(str, path)) or model.__name__
        raise _explain(problem, model, path, where) from None


def _real(path: Path_, data: Any) -> Path_:
    """The path without the names that union members and tagged types put into it."""
    real: list[str | int] = []
    for key in path:
        there = key in data if isinstance(data, Mapping) else isinstance(data, list) and key in range(len(data))
        if there or (isinstance(data, Mapping) and key == path[-1]):  # a key that is missing is not there
            real.append(key)
            data = data[key] if there else None
    return tuple(real)


def _explain(problem: Any, model: type[BaseModel], path: Path_, where: str) -> ConfigError:
    key, message = path[-1] if path else "", problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        valid_keys = _fields(model, problem["loc"][:-1])
        return ConfigError(f"there is no key `{key}`{nearest(str(key), valid_keys)}", where=where)
    if problem["type"] == "missing":
        return ConfigError(f"the key `{key}` is missing", where=where, fix=f"Add `{key}:`")
    value = problem.get("input")
    name = f"{path[-2]}[{key}]" if isinstance(key, int) and len(path) > 1 else str(key)
    description = f"`{name}` is {value!r}" if not isinstance(value, dict | list) else f"`{name}` does not fit"
    if not path:
        description = "the settings do not fit"
    expected = EXPECTED.get(problem["type"], message[:1].lower() + message[1:]).removeprefix("expected ")
    return ConfigError(description, where=where, expected=expected.removeprefix("input should be "))


def _fields(model: Any, path: Path_) -> list[str]:
    """The keys that are valid at `path` below `model`."""
    for key in path:
        if isinstance(key, int):
            continue
        annotation = model.model_fields[key].annotation if key in getattr(model, "model_fields", {}) else None
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return [name for name, field in model.model_fields.items() if not field.exclude]


def _compose(text: str) -> yaml.Node | None:
    """The nodes of a text, of which there are not too many where each alias stands for a copy, and no text is cut.

    Raises:
        YAMLError: it is not YAML, or aliases of aliases make it too large.
    """
    node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    if node:
        _count(node, {})
    return node


def _count(node: yaml.Node, counts: dict[yaml.Node, int]) -> int:
    """Nodes below and with this one; of one that is counted already, or is just being, see `counts`."""
    if node in counts:
        if counts[node]:
            return counts[node]
        raise ComposerError(None, None, "an alias refers to what it stands in", node.start_mark)
    counts[node] = 0
    if isinstance(node, yaml.ScalarNode):
        inner = []
        if UNWRITABLE.search(node.value):
            raise ComposerError(None, None, "a text has a character that no file has", node.start_mark)
    else:
        inner = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
    counts[node] = 1 + sum(_count(part, counts) for part in inner)
    if counts[node] > MOST_NODES:
        problem = f"it has more than {MOST_NODES:,} values where aliases are what they stand for"
        raise ComposerError(None, None, problem, node.start_mark)
    return counts[node]


def parse(text: str) -> Any:
    """What a text of YAML holds. Raises YAMLError, and RecursionError where it is nested too deep."""
    _compose(text)
    loader = _Loader(text)
    try:
        return _unshared(loader.get_single_data())
    finally:
        loader.dispose()


def _unshared(value: Any) -> Any:
    """The same with a copy for each alias, so that what is changed in one place stays as it is in the others."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _child(target: Any, key: str | int, above: str, where: str) -> Any:
    if isinstance(target, dict) and key in target:
        return target[key]
    if isinstance(target, list) and isinstance(key, int) and key < len(target):
        return target[key]
    if isinstance(target, list):
        raise ConfigError(f"`{above}` has no position {key}", where=where, expected=f"0 to {len(target) - 1}")
    valid_keys = [str(k) for k in target] if isinstance(target, dict) else []
    raise ConfigError(f"there is no `{key}` in `{above or 'the file'}`{nearest(str(key), valid_keys)}", where=where)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"there is no file {path}{nearest(path.name, beside)}", where="config") from None
    except IsADirectoryError:
        raise ConfigError("this is a folder", where=str(path), expected="a pipeline file in YAML") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"it cannot be read: {error}", where=str(path)) from None
