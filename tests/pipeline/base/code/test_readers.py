"""What a stage reads while it runs, by libraries too that Python's audit does not tell of, makes its result anew."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from pipeline.base.code.readers import listening
from pipeline.runner import run
from tests.aliases import Make
from tests.users import chain_of, stage_file

READING = """
import copy, sqlite3
from safetensors.torch import load_file
ways = {
    "safetensors": lambda: load_file(FOLDER / "own.safetensors")["amount"].item(),
    "sqlite": lambda: sqlite3.connect(FOLDER / "own.db").execute("select amount from own").fetchone()[0],
    "a folder": lambda: len(list((FOLDER / "parts").glob("*.txt"))),
}
module = copy.deepcopy(model.module)
module[1].bias.data += ways[self.way]()
return replace(model, module=module)
"""


def saved(folder: Path, amount: int) -> None:
    save_file({"amount": torch.tensor(amount)}, folder / "own.safetensors")


def stored(folder: Path, amount: int) -> None:
    with closing(sqlite3.connect(folder / "own.db")) as base, base:
        base.execute("create table if not exists own (amount)")
        base.execute("delete from own")
        base.execute("insert into own values (?)", (amount,))


def listed(folder: Path, amount: int) -> None:
    (folder / "parts").mkdir(exist_ok=True)
    (folder / "parts" / f"{amount}.txt").touch()


@pytest.mark.parametrize(("way", "write"), [("safetensors", saved), ("sqlite", stored), ("a folder", listed)])
def test_what_a_stage_reads_while_it_runs_is_seen(
    way: str, write: Callable[[Path, int], None], quick: Make, tmp_path: Path
) -> None:
    chain = quick(chain_of(f"mine.py, way: {way}"), **{"mine.py": stage_file(READING, 'way: str = ""')})
    cached, biases = [], []
    for amount in (1, None, 2):
        if amount:
            write(chain.parent, amount)
        stage = run(chain, runs=tmp_path / "runs", track=False).stages[0]
        cached.append(stage.cached)
        biases.append(stage.digest)
    assert cached == [False, True, False]
    assert biases[0] == biases[1] != biases[2]


def test_all_is_as_it_was_afterwards() -> None:
    class Deaf:
        def opened(self, path: object) -> None: ...
        def asked(self, name: str) -> None: ...
        def asked_for_all(self) -> None: ...

    before = safetensors.safe_open, safetensors.torch.safe_open
    with listening(Deaf()):
        assert safetensors.safe_open is not before[0]
    assert (safetensors.safe_open, safetensors.torch.safe_open) == before
