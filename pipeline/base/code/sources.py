"""The source files that code consists of: all that it imports, anywhere in it, as far as they are a user's or ours."""

import ast
import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.machinery import PathFinder
from itertools import accumulate
from pathlib import Path

from pydantic import JsonValue

from pipeline.base.code import places

Imported = tuple[tuple[Path, str], ...]
"""Files, each with the dotted name by which it is imported absolutely, or an empty one."""


class Sources:
    """Source files, each read once.

    Args:
        compiled: digests of the sources that were imported, by file: what was edited since then is not what runs.
    """

    def __init__(self, compiled: Mapping[Path, str] | None = None) -> None:
        self.compiled = compiled or {}
        self.read: dict[Path, tuple[str, Imported]] = {}
        self.known: dict[tuple[Path, ...], dict[str, JsonValue]] = {}

    def code(self, files: Iterable[Path]) -> dict[str, JsonValue]:
        """Digests by name of source files and of all that they import of the user's, from stages/ and from pipeline/.

        A user's files are named relative to the folder that holds all of them, and what is imported by its absolute
        name by that: they can be moved together.
        """
        starts = tuple(file.resolve() for file in files)
        if starts not in self.known:
            self.known[starts] = self._code(starts)
        return {**self.known[starts]}

    def _code(self, starts: tuple[Path, ...]) -> dict[str, JsonValue]:
        waiting, names = [(file, "") for file in starts], dict[Path, str]()
        while waiting:
            file, name = waiting.pop()
            if file in names:
                names[file] = name and names[file]
                continue
            names[file] = name
            if file not in self.read:
                content = file.read_bytes()
                digest = self.compiled.get(file) or hashlib.sha256(content).hexdigest()
                self.read[file] = digest, _imports(file, content)
            waiting += self.read[file][1]
        beside = [file for file, name in names.items() if not name and not places.is_ours(file)]
        above = Path(os.path.commonpath([file.parent for file in beside])) if beside else places.OURS
        for file in sorted(names):
            names[file] = names[file] or file.relative_to(above if file in beside else places.OURS).as_posix()
        return {names[file]: self.read[file][0] for file in sorted(names)}


def _imports(file: Path, content: bytes) -> Imported:
    """What a file imports by a relative import, from our packages, or from other code of the user's."""
    imported_files = set[tuple[Path, str]]()
    for level, name in _imported_names(content):
        if level:
            imported_files |= {(path, "") for path in _below(file.parents[level - 1], name)}
        elif name.split(".")[0] in places.PACKAGES:
            imported_files |= {(path, "") for path in _ours(places.OURS, name)}
        elif not places.is_ours(file):
            imported_files |= _elsewhere(name)
    return tuple(sorted(imported_files))


def _below(folder: Path, name: str) -> set[Path]:
    """The modules and packages that a dotted name goes through below a folder."""
    at = [folder.joinpath(*parts) for parts in accumulate([part] for part in name.split("."))] if name else [folder]
    return {path for place in at for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()}


@cache
def _ours(folder: Path, name: str) -> set[Path]:
    """The same below our own folder, which stays as it is and is asked for the same names by hundreds of files."""
    return _below(folder, name)


def _elsewhere(name: str) -> set[tuple[Path, str]]:
    """The user's modules that an absolute name goes through; nothing is imported to know."""
    files, folders = set[tuple[Path, str]](), None
    for dotted in accumulate(name.split("."), lambda above, part: f"{above}.{part}"):
        spec = PathFinder.find_spec(dotted, folders)
        if spec is None:
            break
        if spec.origin and spec.origin.endswith(".py") and places.is_users(spec.origin):
            files.add((Path(spec.origin).resolve(), dotted))
        folders = spec.submodule_search_locations
        if folders is None:
            break
    return files


@cache
def _imported_names(content: bytes) -> tuple[tuple[int, str], ...]:
    """Level and dotted name of all that may be a module among what a source imports."""
    names = set[tuple[int, str]]()
    for node in _import_statements(ast.parse(content)):
        if isinstance(node, ast.Import):
            names |= {(0, alias.name) for alias in node.names}
        else:
            names |= {(node.level, f"{node.module or ''}.{alias.name}".lstrip(".")) for alias in node.names}
    return tuple(sorted(names))


def _import_statements(tree: ast.AST) -> Iterable[ast.Import | ast.ImportFrom]:
    """Every import, found by walking statements alone: most nodes of a tree lie in expressions."""
    if isinstance(tree, ast.Import | ast.ImportFrom):
        yield tree
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in getattr(tree, block, ()):
            yield from _import_statements(inner)
