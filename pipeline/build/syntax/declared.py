"""The built-in stages and their keys, read from their sources: a wrong one is told before torch is imported."""

import ast
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pipeline.base.code.extras import expect_extra
from pipeline.base.use import built_in, is_built_in, nearest
from pipeline.build.config import PipelineConfig, StageConfig
from pipeline.build.syntax.asked import answer, answer_key
from pipeline.build.syntax.validate import Places
from pipeline.errors import ConfigError

STAGE = "pipeline.stage:Stage"


def check_declared(config: PipelineConfig, source: Places | None) -> None:
    """Raise ConfigError for the first built-in stage that there is not, that has no such key or lacks its extra."""
    for key, entries in (("baseline", config.baseline), ("stages", config.stages)):
        check_entries(entries, key, source)


def check_entries(entries: Sequence[StageConfig], key: str, source: Places | None) -> None:
    """The same of one list of stages, `key` in the file."""
    for i, entry in enumerate(entries):
        if not is_built_in(entry.use):
            continue
        if entry.use not in stage_names():
            where = source.place((key, i, "use")) if source else f"{key}[{i}]"
            problem = f"there is no stage `{entry.use}`{stage_hint(entry.use)}"
            raise ConfigError(problem, where=where, fix="" if answer(entry.use) else "A file of your own ends in .py")
        known = keys_of(entry.use)
        for unknown in [name for name in entry.settings if name not in known]:
            where = source.place((key, i, unknown)) if source else f"{key}[{i}]"
            hint = answer_key(unknown, known) or nearest(unknown, known)
            raise ConfigError(f"there is no key `{unknown}`{hint}", where=where)
        if extra := extra_of(entry.use):
            place = f"{key}[{i}] ({entry.use})"
            where = f"{source.place((key, i, 'use'))}: {place}" if source else place
            expect_extra(extra, where)


def stage_hint(use: str) -> str:
    """For a message: what does what a name of no stage asks for, the methods of a family, or the nearest stages."""
    methods = [name for name in stage_names() if name.startswith(f"{use}.")]
    family = f"; there are {', '.join(f'`{name}`' for name in methods)}" if methods else ""
    return answer(use) or family or nearest(use, [*stage_names()])


@cache
def stage_names() -> tuple[str, ...]:
    """Every built-in stage, as `use:` names it."""
    return tuple(name for name in built_in("stages") if "." in name and _stage_in(f"stages.{name}"))


@cache
def keys_of(use: str) -> list[str]:
    """The keys of a built-in stage."""
    module = f"stages.{use}"
    return list(_fields(module, _stage_in(module)))


@cache
def extra_of(use: str) -> str:
    """The extra that a built-in stage needs; empty where it needs none, and for what is no such stage."""
    module = f"stages.{use}"
    return _extra(module, _stage_in(module)) if use in stage_names() else ""


def _stage_in(module: str) -> str:
    """The name of the class in a module that is a stage; empty where there is none."""
    return next((name for name in _classes(module) if STAGE in _ancestors(module, name)), "")


@cache
def _ancestors(module: str, name: str) -> frozenset[str]:
    """A class and all that it derives from among pipeline and stages, such as "pipeline.stage:Stage"."""
    above = [_ancestors(*base) for base in _bases(module, name)]
    return frozenset({f"{module}:{name}"}).union(*above)


@cache
def _fields(module: str, name: str) -> dict[str, None]:
    """The annotated names of a class and of those above it, in pydantic's order: of the last base first."""
    fields = dict[str, None]()
    for base in reversed(_bases(module, name)):
        fields |= _fields(*base)
    for node in _classes(module)[name].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            is_field = "ClassVar" not in ast.unparse(node.annotation) and not node.target.id.startswith("_")
            fields |= {node.target.id: None} if is_field else {}
    return fields


def _extra(module: str, name: str) -> str:
    """What a class says that its extra is, or else one above it."""
    for node in _classes(module)[name].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "extra":
            return str(ast.literal_eval(node.value)) if node.value else ""
    return next((extra for base in _bases(module, name) if (extra := _extra(*base))), "")


def _bases(module: str, name: str) -> list[tuple[str, str]]:
    """The modules and names of the classes that one derives from, those outside of pipeline and stages aside."""
    names = [node.id for node in _classes(module)[name].bases if isinstance(node, ast.Name)]
    places = [_imported(module).get(base, (module, base)) for base in names]
    return [place for place in places if place[0].partition(".")[0] in ("pipeline", "stages")]


def _classes(module: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _tree(module).body if isinstance(node, ast.ClassDef)}


@cache
def _imported(module: str) -> dict[str, tuple[str, str]]:
    """What a module imports by name: from where, and what it is called there."""
    imports = [node for node in _tree(module).body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: (node.module or "", alias.name) for node in imports for alias in node.names}


@cache
def _tree(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    return ast.parse(Path(spec.origin).read_bytes()) if spec and spec.origin else ast.Module([], [])
