"""`use:` finds what it names, tells apart what went wrong, and keeps users' files apart."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.base.use import Reference, built_in, find, import_file, nearest
from pipeline.errors import ConfigError
from pipeline.task import Split
from tests.aliases import Patch

DATASET = """
import torch
from .helpers import SHIFT

class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.full((2,), float(index + SHIFT)), index

def collate(rows):
    return torch.stack([x['input'] for x, _ in rows]) * 2, torch.tensor([y for _, y in rows])
"""


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_two_files_of_one_name_do_not_collide(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, models=f"NAME = '{name}'\nclass Net: pass\n") for name in ("a", "b")]
    modules = [import_file(folder / "models.py") for folder in folders]
    assert [m.NAME for m in modules] == ["a", "b"]
    assert modules[0].Net is not modules[1].Net
    assert import_file(folders[0] / "models.py") is modules[0]


def test_an_edited_file_is_imported_anew_within_a_second_at_the_same_size_and_so_is_its_helper(tmp_path: Path) -> None:
    found = [import_file(write(tmp_path, models=f"WIDTH = {width}\n") / "models.py").WIDTH for width in range(5)]
    assert found == [0, 1, 2, 3, 4]
    for width in (1, 2):
        folder = write(tmp_path, models="from .helpers import width\n", helpers=f"width = {width}\n")
        found = import_file(folder / "models.py")
        assert found.width == width


def test_importing_leaves_nothing_behind_in_the_users_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", models="from .helpers import x\n", helpers="x = 1\n")
    import_file(folder / "models.py")
    assert sorted(p.name for p in folder.iterdir()) == ["helpers.py", "models.py"]


def test_spawned_workers_find_the_classes_of_a_users_file(tmp_path: Path) -> None:
    module = import_file(write(tmp_path, data=DATASET, helpers="SHIFT = 10\n") / "data.py")
    loader = Split(module.Numbers(), collate=module.collate).loader(4, workers=1)
    loader.multiprocessing_context = "spawn"
    batches = list(loader)
    assert torch.cat([b.inputs["input"][:, 0] for b in batches]).tolist() == [20, 22, 24, 26, 28, 30]
    assert torch.cat([b.index for b in batches]).tolist() == list(range(6))


@pytest.mark.parametrize(("use", "message"), [
    ("absent.py", r"there is no file .*absent\.py; did you mean `absence\.py`"),
    ("nowhere/models.py:Net", r"there is no file .*models\.py"),
    ("good.py:Ned", r"`good\.py` has no `Ned`; did you mean `Net`"),
    ("distil.logits", r"there is no module `stages\.distil\.logits`; did you mean `distill\.logits`"),
    ("distill.logit", r"there is no module `stages\.distill\.logit`; did you mean `distill\.logits`"),
    ("torch.nm:Linear", r"there is no module `torch\.nm`"),
    ("torch.nn:Linea", r"`torch\.nn` has no `Linea`; did you mean `Linear`"),
])  # fmt: skip
def test_what_is_not_there_is_named_with_the_nearest_that_is(tmp_path: Path, use: str, message: str) -> None:
    folder = write(tmp_path, good="class Net: pass\n", absence="")
    with pytest.raises(ConfigError, match=message):
        find(use, folder, package="stages")


def test_an_import_missing_in_an_installed_module_is_not_that_module(tmp_path: Path, monkeypatch: Patch) -> None:
    write(tmp_path, installed_here="import absent_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"No module named 'absent_dependency'.*Install what is missing"):
        find("installed_here:Net", tmp_path)


@pytest.mark.parametrize(("text", "message"), [
    ("1 / 0\n", r"use: bad\.py: ZeroDivisionError: division by zero"),
    ("def f(:\n", r"use: bad\.py: SyntaxError: .*bad\.py, line 1"),
    ("import absent_dependency\n", r"use: bad\.py: ModuleNotFoundError: No module named 'absent_dependency'"),
    ("from .absent import x\n", r"use: bad\.py: ModuleNotFoundError: No module named '.*absent'"),
])  # fmt: skip
def test_a_file_that_fails_on_import_is_one_error_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    folder = write(tmp_path, bad=text)
    for _ in range(2):
        with pytest.raises(ConfigError, match=message):
            find("bad.py:Net", folder)


def test_a_file_that_was_repaired_imports(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        import_file(write(tmp_path, bad="1 / 0\n") / "bad.py")
    assert import_file(write(tmp_path, bad="x = 10\n") / "bad.py").x == 10


@pytest.mark.parametrize(("given", "arguments"), [
    ({"use": "torch.nn:Linear", "in_features": 2, "out_features": 3}, {"in_features": 2, "out_features": 3}),
    ({"use": "torch.nn:Linear", "arguments": {"in_features": 2}, "out_features": 3},
     {"in_features": 2, "out_features": 3}),
    ("torch.nn:Linear", {}),
])  # fmt: skip
def test_every_other_key_of_a_reference_is_an_argument(given: Any, arguments: dict[str, Any]) -> None:
    reference = Reference.model_validate(given)
    assert (reference.use, reference.arguments) == ("torch.nn:Linear", arguments)


def test_a_call_that_fails_names_its_use() -> None:
    with pytest.raises(ConfigError, match=r"use: torch\.nn:Linear: TypeError: .*unexpected keyword argument 'width'"):
        Reference.model_validate({"use": "torch.nn:Linear", "width": 3}).call()


def test_what_is_saved_of_a_reference_does_not_hold_the_folder(tmp_path: Path) -> None:
    reference = Reference(use="models.py:Net", arguments={"width": 1}, folder=tmp_path)
    assert reference.model_dump(mode="json") == {"use": "models.py:Net", "arguments": {"width": 1}}


def test_built_in_names_modules_without_importing_them(tmp_path: Path, monkeypatch: Patch) -> None:
    write(tmp_path / "some_stages", __init__="", single="1 / 0\n")
    write(tmp_path / "some_stages" / "family", __init__="1 / 0\n", method="1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert built_in("some_stages") == ["family.method", "single"]


def test_nearest_lists_what_there_is_where_nothing_is_near() -> None:
    assert nearest("zzz", ["alpha", "beta"]) == "; there are `alpha`, `beta`"
    assert nearest("alpa", ["alpha", "beta"]) == "; did you mean `alpha`?"
    assert nearest("x", []) == ""


def test_a_file_is_no_builder(tmp_path: Path) -> None:
    write(tmp_path, models="net = 3\n")
    message = r"use: models\.py: it names a module; expected a function or a class, such as"
    with pytest.raises(ConfigError, match=message):
        Reference(use="models.py", folder=tmp_path).call()
    with pytest.raises(ConfigError, match=r"it names a int; expected one to call"):
        Reference(use="models.py:net", folder=tmp_path).call()
