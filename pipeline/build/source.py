"""A pipeline file -> config: YAML, lines in errors, overrides, strict validation."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.base.data.keys import Keys
from pipeline.base.use import nearest
from pipeline.build.config import PipelineConfig
from pipeline.build.syntax.carried import carried
from pipeline.build.syntax.parse import compose, parse
from pipeline.build.syntax.validate import fields, validate
from pipeline.errors import ConfigError
from pipeline.records.comparison import BASELINE

STRATEGY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ +-]*")
VARIABLE = re.compile(r"\$\{[A-Za-z_]\w*\}")
ANCHORS = "x-"
"""What keys begin with, at the top of a file, that are a place for anchors and nothing else."""


class Source:
    """A parsed pipeline file with the line of every key, for errors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Keys, str] = {}
        text = _read(path)
        try:
            self._walk(compose(text), ())
            self.data: Any = parse(text)
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{path}:{mark.line + 1}" if mark else str(path)
            problem = getattr(error, "problem", None) or str(error)
            fix = "Look at indentation and quotes"
            raise ConfigError(f"this is not YAML: {problem}", where=where, fix=fix) from None
        if not isinstance(self.data, dict):
            raise ConfigError("there is no pipeline in it", where=str(path), expected="the keys task, model and stages")
        self._refuse_variables(self.data, ())

    def place(self, path: Keys) -> str:
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
        path: Keys = tuple(int(k) if k.isascii() and k.isdigit() else k for k in keys.split("."))
        target = self.data
        for i, key in enumerate(path[:-1]):
            if isinstance(target, dict) and key not in target and key in fields(PipelineConfig, path[:i]):
                target[key] = {}  # a mapping that the file leaves out, such as budget
            target = _child(target, key, ".".join(map(str, path[:i])), where)
        last = path[-1]
        if isinstance(target, list):
            _child(target, last, ".".join(map(str, path[:-1])), where)
        elif not isinstance(target, dict):
            fix = "Name a key that has keys"
            raise ConfigError(f"`{keys.rpartition('.')[0]}` is not a mapping", where=where, fix=fix)
        try:
            self._walk(compose(text), ())
            target[last] = parse(text)
        except (yaml.YAMLError, RecursionError) as error:
            problem = f"`{text}` is not YAML: {getattr(error, 'problem', None) or 'it is nested too deep'}"
            raise ConfigError(problem, where=where, fix="Quote it") from None
        self.lines = {key: line for key, line in self.lines.items() if key[: len(path)] != path} | {path: where}

    def _refuse_variables(self, value: Any, path: Keys) -> None:
        """Raise ConfigError where a value of the file names a variable of the environment; those of --set may."""
        if isinstance(value, dict | list):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                self._refuse_variables(inner, (*path, key))
        elif isinstance(value, str) and (variable := VARIABLE.search(value)):
            key = ".".join(map(str, path))
            problem = f"`{path[-1]}` has {variable[0]}, and a file's values are taken as they are written"
            fix = f'Let the shell fill it in: --set {key}="{value}"'
            raise ConfigError(problem, where=self.place(path), fix=fix)

    def _walk(self, node: yaml.Node | None, path: Keys) -> None:
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


def load_all(path: Path, overrides: Sequence[str] = ()) -> dict[str | None, tuple[PipelineConfig, Source]]:
    """The same of each strategy of a file, by its name; of None in a file with `stages:`."""
    names: list[str | None] = [*Source(path).strategies()] or [None]
    return {name: load_config(path, overrides, name) for name in names}


def slug(strategy: str) -> str:
    """A strategy's name as part of a folder's: "distill + quantize" -> "distill-quantize"."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", strategy).strip("-")


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
        fix = "" if path.suffix else f"Give a file, or one that comes with the package: {', '.join(sorted(carried()))}"
        raise ConfigError(f"there is no file {path}{nearest(path.name, beside)}", where="config", fix=fix) from None
    except IsADirectoryError:
        raise ConfigError("this is a folder", where=str(path), expected="a pipeline file in YAML") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"it cannot be read: {error}", where=str(path)) from None
