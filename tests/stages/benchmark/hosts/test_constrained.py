"""This machine within limits."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from pipeline.task import Split
from stages.benchmark.conversion import save_inputs
from stages.benchmark.hosts.constrained import Constrained
from stages.benchmark.latency import Latency
from stages.benchmark.processes.process import time_process
from tests.aliases import Make
from tests.contexts import preview_of, refused
from tests.graphs import products

DATA: Split = Split([(torch.rand(32), 0) for _ in range(9)])  # type: ignore[arg-type]
CPU = min(os.sched_getaffinity(0))
RUNTIME = """
from typing import ClassVar
from stages.benchmark.runtime import Runtime


class Own(Runtime):
    package: ClassVar[str] = "numpy"
"""
TELLS = """
import os, threading
from stages.benchmark.runners.onnxruntime import load as load_file


def load(spec):
    seen = sorted(os.sched_getaffinity(0))
    loaded = load_file(spec)
    loaded.description["seen"] = seen
    return loaded
"""
TAKES = """
from mmap import mmap
from stages.benchmark.runners.onnxruntime import load as load_file


def load(spec):
    held = {held}
    return load_file(spec)
"""


def measured(runtimes: list[Any], folder: Path, context: Make, **rest: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows and the warnings of a small file."""
    warnings: list[str] = []
    model = products(folder / "m.onnx", 2)
    ctx = context(warn=warnings.append, calibration=DATA)
    settings = {"runtimes": runtimes, "rounds": 1, "iterations": 5, **rest}
    Latency.model_validate(settings, context={"folder": folder}).run(model, ctx)
    return context.reports["latency"], warnings  # type: ignore[attr-defined]


def test_a_process_is_on_its_processors_before_it_imports_anything(tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text(TELLS)
    machine = Constrained(cpus=(CPU,)).machine()
    spec = {"runner": str(tmp_path / "tells.py"), "model": str(products(tmp_path / "m.onnx", 2).path), "threads": 1}
    inputs = save_inputs({"input": torch.zeros(1, 32)}, tmp_path / "i.npz")
    times = {"inputs": inputs, "warmup": 0, "seconds": 1, "iterations": 2}
    _, facts = time_process({**spec, **times, "machine": machine}, tmp_path)
    assert facts["description"]["seen"] == [CPU]


def test_a_row_within_limits_stands_beside_one_without(tmp_path: Path, context: Make) -> None:
    limits = {"cpus": [CPU], "memory": "400 MB"}
    (row, plain), warnings = measured([{"use": "onnxruntime", "on": limits}, "onnxruntime"], tmp_path, context)
    assert row["host"] == f"constrained: cpus {CPU}, 400 MB"
    assert "host" not in plain
    assert row["samples"] == plain["samples"] == 5
    assert "device" not in row
    assert "agreement" not in row  # it is the machine and the runtime that others are compared with
    assert not [text for text in warnings if "load of this machine" not in text]


@pytest.mark.parametrize(("memory", "held", "reason"), [
    ("300 MB", "bytearray(10**9)", r"it needs more memory than there is \(constrained: 300 MB\): .*MemoryError"),
    ("40 MB", "None", r"it needs more memory than there is \(constrained: 40 MB\): "),
    # Pages that are shared count as well, which the system does not limit.
    ("200 MB", "mmap(-1, 2**28); [held.write(bytes(2**20)) for _ in range(2**8)]", r"held \d+\.\d MB"),
])  # fmt: skip
def test_what_needs_more_memory_is_skipped_and_says_so(
    memory: str, held: str, reason: str, tmp_path: Path, context: Make
) -> None:
    (tmp_path / "own.py").write_text(RUNTIME)
    (tmp_path / "own_runner.py").write_text(TAKES.format(held=held))
    own = {"use": "own.py", "on": {"memory": memory}}
    (row, plain), warnings = measured([own, "onnxruntime"], tmp_path, context, examples=0)
    assert re.search(reason, row["skipped"])
    assert plain["samples"] == 5
    assert any("own on constrained: " in text and "not timed" in text for text in warnings)


@pytest.mark.parametrize(("on", "message"), [
    ({}, "onnxruntime: `on[^ ]*: `cpus`, `memory`, or `ssh`"),
    ("pi@board", "runtime onnxruntime: `on`: a mapping with `ssh`, or with `cpus` or `memory`"),
    ({"cpus": []}, "at least 1 item"),
    ({"cpus": [-1]}, "greater than or equal to 0"),
    ({"memory": "much"}, "`on.memory`: a size, such as 40 kB"),
    ({"memory": 0}, "greater than 0"),
    ({"memory": "1 GB", "cores": 2}, "`on.cores`: Extra inputs"),
    ({"ssh": "-oProxyCommand=x"}, "`on.ssh`"),
    ({"ssh": "pi@board:2222"}, "`on.ssh`: pi@board, with `port: 2222` beside it"),
    ({"ssh": "pi@board", "cpus": [0]}, "`on.cpus`: Extra inputs"),
])  # fmt: skip
def test_settings_are_checked(on: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Latency.model_validate({"runtimes": [{"use": "onnxruntime", "on": on}]})


def test_processors_that_are_not_there_and_too_many_threads_are_refused_before_work(tiny: Make) -> None:
    def stage(**rest: Any) -> Latency:
        return Latency.model_validate(rest)

    preview = preview_of(tiny())
    far = [{"use": "onnxruntime", "on": {"cpus": [4000]}}]
    refused(
        r"onnxruntime on constrained: cpus 4000, which cannot run there: .*not on 4000",
        stage(runtimes=far).check([], preview),
    )
    one = [{"use": "onnxruntime", "on": {"cpus": [CPU]}}]
    refused("`threads` has 2, which is more than its 1 processors", stage(runtimes=one, threads=[2]).check([], preview))


def test_limits_are_settings_and_so_part_of_the_key() -> None:
    given = {"use": "onnxruntime", "on": {"cpus": [1, 0, 1], "memory": "1 GB"}}
    stage = Latency.model_validate({"runtimes": [given]})
    (kept,) = stage.model_dump(mode="json")["runtimes"]
    assert kept["on"] == {"cpus": [0, 1], "memory": 10**9}
    assert Latency.model_validate(stage.model_dump(mode="json")) == stage
