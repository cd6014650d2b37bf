"""Two objects that do not do the same have other digests, and the same one has the same in every process."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pipeline.build.live.digest import Digest

ROOT = Path(__file__).parents[4]

DECORATED = "import torch\n@torch.no_grad()\ndef score(p, t):\n    return {}\nvalue = score"
WRAPPED = "import functools\ndef inner(x):\n    return x + {}\nvalue = functools.lru_cache(inner)"
CLOSED = "import torch\ndef made(k):\n    @torch.no_grad()\n    def score(p, t):\n        return k\n    return score\n"
NAMED = "from typing import NamedTuple\nclass P(NamedTuple):\n    a: int\n    def __call__(self):\n        return {}\n"
KIND = "class Kind({}):\n    def __call__(self):\n        return {}\n"
TRIED = "def value(x):\n    try:\n        {}\n    except ValueError:\n        pass\n{}    return x"
PRIVATE = "from pydantic import BaseModel, PrivateAttr\nclass M(BaseModel):\n    _k: int = PrivateAttr({})\nvalue = M()"

PAIRS = {
    "under a library's decorator": (DECORATED.format("p"), DECORATED.format("t")),
    "in a cache of functools": (WRAPPED.format(1), WRAPPED.format(2)),
    "in a closure under a decorator": (f"{CLOSED}value = made(1)", f"{CLOSED}value = made(2)"),
    "an attribute of a function": ("def value(): ...\nvalue.k = 1", "def value(): ...\nvalue.k = 2"),
    "code of a named tuple": (f"{NAMED.format(1)}value = P(0)", f"{NAMED.format(2)}value = P(0)"),
    **{
        f"code of a subclass of {kind}": (
            f"{KIND.format(kind, 1)}value = Kind()",
            f"{KIND.format(kind, 2)}value = Kind()",
        )
        for kind in ("dict", "list", "str", "int", "set")
    },
    "code of an enum": (
        f"from enum import Enum\n{KIND.format('Enum', 1)}    A = 1\nvalue = Kind.A",
        f"from enum import Enum\n{KIND.format('Enum', 2)}    A = 1\nvalue = Kind.A",
    ),
    "an attribute of a list": (
        "class Kind(list): ...\nvalue = Kind()\nvalue.k = 1",
        "class Kind(list): ...\nvalue = Kind()\nvalue.k = 2",
    ),
    "the default of a dictionary": (
        "from collections import defaultdict\nvalue = defaultdict(int)",
        "from collections import defaultdict\nvalue = defaultdict(list)",
    ),
    "items in C": (
        "from collections import deque\nvalue = deque([1])",
        "from collections import deque\nvalue = deque([2])",
    ),
    "state in C": ("import random\nvalue = random.Random(1)", "import random\nvalue = random.Random(2)"),
    "a method of what is in C": ("value = [1].count", "value = [2].count"),
    "what may fail": (TRIED.format("x.a()\n        x.b()", ""), TRIED.format("x.a()", "    else:\n        x.b()\n")),
    "the names of arguments": ("def value(a, b): return 1", "def value(a, *, b): return 1"),
    "a private attribute": (PRIVATE.format(1), PRIVATE.format(2)),
    "compiled": (
        "import torch\nvalue = torch.compile(lambda x: x)",
        "import torch\nvalue = torch.compile(lambda x: -x)",
    ),
    "a slot of two underscores": (
        "class K:\n    __slots__ = ('__k',)\n    def __init__(self, k): self.__k = k\nvalue = K(1)",
        "class K:\n    __slots__ = ('__k',)\n    def __init__(self, k): self.__k = k\nvalue = K(2)",
    ),
}


def value_of(source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a user's module calls `value`."""
    module = ModuleType("users_code")
    module.__file__ = "/users/users_code.py"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, module.__file__, "exec"), vars(module))  # noqa: S102
    return module.__dict__["value"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "compiled")) for n in PAIRS])
def test_what_does_not_do_the_same_has_another_digest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, same, other = (
        Digest().add(value_of(source, monkeypatch)) for source in (PAIRS[name][0], PAIRS[name][0], PAIRS[name][1])
    )
    assert one.hexdigest() == same.hexdigest() != other.hexdigest()
    assert not one.opaque


def test_what_cannot_be_told_of_an_object_is_named() -> None:
    digest = Digest().add({"scripted": torch.jit.script(torch.nn.Linear(1, 1))._c, "rows": (i for i in [1])})
    assert {"builtins.generator"} < digest.opaque


SOURCE = """
import functools, random, sys
from random import randint
import torch
from pydantic import BaseModel
sys.path.append(sys.argv[1])
from pipeline.build.live.digest import Digest
class Tree(BaseModel):
    below: "list[Tree]" = []
class Node:
    def __init__(self): self.near, self.words = {self}, {"a", "b", "c"}
    @functools.cached_property
    def size(self) -> "int | None": return randint(1, 2)
@torch.no_grad()
def score(p: int | None, t): return Tree, Node, random.random, p in {"a", "b", "c"}
print(Digest().add((Node(), Tree(), score, torch.nn.Linear)).hexdigest())
"""


@pytest.mark.slow
def test_another_process_with_another_order_of_sets_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SOURCE)
    words = [sys.executable, str(tmp_path / "script.py"), str(ROOT)]
    outputs = {
        subprocess.run(words, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
