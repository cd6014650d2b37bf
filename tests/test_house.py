"""The house keeps its order: rooms of a size, docstring-only `__init__` files, tests where their module lies."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [path for top in ("pipeline", "stages") for path in sorted((ROOT / top).rglob("*.py"))]
PARTICIPLES = {"found", "made", "given", "told", "said"}


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_folder_has_more_than_12_files() -> None:
    sizes = Counter(shown(path.parent) for path in MODULES)
    assert not {folder: size for folder, size in sizes.items() if size > 12}


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=shown)
def test_an_init_file_holds_a_docstring_alone(path: Path) -> None:
    (docstring,) = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)


def test_every_folder_of_modules_is_a_package() -> None:
    assert not {shown(path.parent) for path in MODULES if not (path.parent / "__init__.py").is_file()}


def files_of_tests(top: str) -> Iterator[Path]:
    return (ROOT / "tests" / top).rglob("test_*.py")


@pytest.mark.parametrize(
    "path", [path for top in ("pipeline", "stages") for path in sorted(files_of_tests(top))], ids=shown
)
def test_a_test_lies_where_its_module_does_and_begins_with_its_name(path: Path) -> None:
    room = ROOT / path.parent.relative_to(ROOT / "tests")
    names = [entry.stem for entry in room.iterdir() if entry.suffix == ".py" or entry.is_dir()]
    subject = path.stem.removeprefix("test_")
    assert any(subject == name or subject.startswith(f"{name}_") for name in names)


def test_locals_are_called_by_a_noun() -> None:
    assigned = Counter(
        node.id
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in PARTICIPLES
    )
    assert assigned.total() <= 10, assigned


def test_a_docstring_begins_with_what_comes_out_or_is_done() -> None:
    kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
    nodes = [
        (path, node) for path in MODULES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)
    ]
    wrong = ("Nothing.", "Raises ")
    assert not [
        f"{shown(path)}: {node.name}" for path, node in nodes if (ast.get_docstring(node) or "").startswith(wrong)
    ]
