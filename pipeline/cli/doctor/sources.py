"""Where the code that `use:` names lies, and what it imports that is not installed; nothing of it is run."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from pipeline.base.use import built_in, nearest
from pipeline.build.syntax.declared import stage_hint


class Absent(Exception):
    """There is no such file or module; the message says which."""


def source_of(use: str, folder: Path, package: str = "") -> Path | None:
    """The file that `use` names, None where it is an installed module's, which is not read.

    Args:
        use: as in a pipeline file.
        folder: where files are looked for.
        package: what a bare dotted name is in, such as "stages".

    Raises:
        Absent: there is no such file or module.
    """
    name, _, attribute = use.partition(":")
    if name.endswith(".py"):
        path = folder / name
        if not path.is_file():
            raise Absent(f"there is no file {path}{nearest(path.name, [p.name for p in path.parent.glob('*.py')])}")
        return path
    if package and not attribute:
        if _spec(f"{package}.{name}") is None:
            hint = stage_hint(name) if package == "stages" else nearest(name, built_in(package))
            raise Absent(f"there is no module `{package}.{name}`{hint}")
        file = _file(f"{package}.{name}")
        if file and file.name == "__init__.py":  # a folder stands for its file of the same name
            return file.with_name(f"{file.parent.name}.py")
        return file
    top = name.partition(".")[0]
    if not _installed(top):
        raise Absent(f"there is no module `{top}`")
    return _file(name) if top in ("pipeline", "stages") else None


def missing_imports(path: Path, seen: frozenset[Path] = frozenset()) -> set[str]:
    """Top-level modules that a file, or one beside it that it imports, needs and that are not installed.

    What it tries to import, with another way where that fails, it does not need. A file that is no Python needs none:
    importing it says what is wrong.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    modules = set[str]()
    for node in _needed(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            for beside in _beside(node, path):
                if beside not in seen | {path}:
                    modules |= missing_imports(beside, seen | {path})
        else:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            modules |= {name.partition(".")[0] for name in names}
    return {name for name in modules if not _installed(name)}


def _needed(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports below a node, but for those that are tried and those for type checkers."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
        return
    if isinstance(node, ast.Try) and any("Error" in ast.unparse(h.type) for h in node.handlers if h.type):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    for child in ast.iter_child_nodes(node):
        yield from _needed(child)


def _beside(node: ast.ImportFrom, path: Path) -> list[Path]:
    """The user's files that a relative import reads: `from .helpers import x`, `from . import helpers`."""
    folder = path.parent
    for _ in range(node.level - 1):
        folder = folder.parent
    names = [node.module.replace(".", "/")] if node.module else [alias.name for alias in node.names]
    files = [folder / f"{name}.py" for name in names]
    return [file for file in files if file.is_file()]


def _file(name: str) -> Path | None:
    """The source of one of our own modules, whose packages are quick to import."""
    spec = _spec(name)
    if spec is None:
        raise Absent(f"there is no module `{name}`")
    return Path(spec.origin) if spec.origin else None


def _spec(name: str) -> ModuleSpec | None:
    """Where a module comes from, None where there is none."""
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None


def _installed(top: str) -> bool:
    return top in sys.modules or top in sys.stdlib_module_names or _spec(top) is not None
