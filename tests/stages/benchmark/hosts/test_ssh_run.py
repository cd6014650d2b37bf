"""Whole runs with a device over SSH: rows beside those of this machine, keys, and what is refused before work."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import Note, StageError
from pipeline.runner import run
from pipeline.task import Split
from stages.benchmark.hosts.ssh import Ssh
from stages.benchmark.latency import Latency
from stages.benchmark.processes.process import time_process
from stages.benchmark.runtimes.onnxruntime import OnnxRuntime
from tests import forked
from tests.aliases import Make
from tests.contexts import preview_of, refused
from tests.devices import SLEEPS, Server, served, sleeping, spec_of
from tests.graphs import products
from tests.users import FLAT, chain_of

pytestmark = served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as device:
        yield device


def runtimes(server: Server, required: bool = False, **changes: Any) -> list[Any]:
    """Here, on the device, and on the device with changes of how it is reached."""
    there, other = ({"use": "onnxruntime", "on": server.on(**rest)} for rest in ({}, changes))
    return ["onnxruntime", there, {**other, "required": required}]


@pytest.mark.slow
def test_a_run_has_rows_of_the_device_and_of_this_machine_and_says_why_one_is_skipped(
    server: Server, project: Make
) -> None:
    (empty := server.folder / "empty").write_text("")
    listed = json.dumps([*runtimes(server, known_hosts=str(empty)), {"use": "openvino", "on": server.on()}])
    stage = f"benchmark.latency, rounds: 1, iterations: 5, runtimes: {listed}"
    path = project(chain_of("export.onnx", stage, model="use: models.py:flat"), **{"models.py": FLAT})
    record = run(path, runs=path.parent / "runs", track=False)
    rows: list[Any] = record.stages[-1].latency
    here, there, skipped, openvino = rows
    name = f"ssh: 127.0.0.1:{server.port}"
    assert ("host" in here, there["host"], skipped["host"]) == (False, name, name)
    assert here["samples"] == there["samples"] == 5
    assert here["score"]["value"] == there["score"]["value"]
    assert (there["agrees"], there["score"]["verdict"]) == (True, "same decisions")
    assert there["version"] == here["version"]
    assert (openvino["host"], openvino["precision"], openvino["score"]["verdict"]) == (name, "f32", "same decisions")
    assert openvino["baseline"]["score"]["value"] == here["baseline"]["score"]["value"]
    assert there["device"]["cores"] >= 1
    assert there["reasons"].keys() >= {name for name in ("device.clock_mhz",) if there["device"]["clock_mhz"] is None}
    assert "its host key is not known" in skipped["skipped"]
    assert any(f"onnxruntime on {name}: not timed: {name}: its host key" in text for text in record.warnings)
    assert server.left() == []


def test_one_that_is_required_ends_the_run_with_3(server: Server, tmp_path: Path, context: Make) -> None:
    stage = Latency.model_validate(
        {"runtimes": runtimes(server, True, python="/no/python"), "iterations": 5, "rounds": 1}
    )
    ctx = context(calibration=Split([(torch.rand(32), 0)]))  # type: ignore[arg-type]
    with pytest.raises(StageError, match="/no/python, which it cannot run") as raised:
        stage.run(products(tmp_path / "m.onnx", 2), ctx)
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(("on", "message"), [
    ({"identity": "no-key"}, r"onnxruntime on ssh: board, which cannot run there: `identity` is \S+/no-key, which is"),
    ({"known_hosts": "~/no-such-file"}, r"`known_hosts` is /\S+/no-such-file, which is no file"),
])  # fmt: skip
def test_files_that_are_not_there_are_refused_before_work(
    on: dict[str, Any], message: str, tmp_path: Path, tiny: Make
) -> None:
    settings = {"runtimes": [{"use": "onnxruntime", "on": {"ssh": "board", **on}}]}
    stage = Latency.model_validate(settings, context={"folder": tmp_path})
    refused(message, stage.check([], preview_of(tiny())))


def test_what_needs_our_code_is_refused_for_a_device_and_what_is_missing_here_is_not(tiny: Make) -> None:
    def stage(use: str, threads: int = 1) -> Latency:
        return Latency.model_validate({"runtimes": [{"use": use, "on": {"ssh": "board"}}], "threads": [threads]})

    preview = preview_of(tiny())
    refused(
        "torch on ssh: board, which cannot run there: it needs more than its package", stage("torch").check([], preview)
    )
    # Nor are the cores of this machine too few for it.
    (note,) = stage("onnxruntime", threads=4000).check([], preview)
    assert isinstance(note, Note)
    assert note.startswith("ssh: board: what is installed there is not in the key")


def test_the_key_has_the_device_and_not_what_is_installed_here(server: Server) -> None:
    def host(**changes: Any) -> Ssh:
        return Ssh.model_validate(server.on(**changes))

    own, stranger = host().rests_on(), server.folder / "stranger"
    stranger.write_text(f"[127.0.0.1]:{server.port} {(server.folder / 'other.pub').read_text()}")
    assert own["host_keys"]
    assert own == host(python="elsewhere").rests_on()
    assert host(known_hosts=str(stranger)).rests_on() != own
    assert host(known_hosts="/dev/null").rests_on() == {"host_keys": None}
    hashed = server.folder / "hashed"
    hashed.write_text((server.folder / "known").read_text())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(hashed)], check=True, capture_output=True)
    assert "127.0.0.1" not in hashed.read_text()
    assert host(known_hosts=str(hashed)).rests_on() == own
    runtime = OnnxRuntime(use="onnxruntime")
    far = OnnxRuntime.model_validate({"use": "onnxruntime", "on": server.on()})
    assert (runtime.rests_on()["version"] is None, far.rests_on()["version"]) == (False, None)


def asking(on: dict[str, Any], spec: dict[str, Any], folder: Path) -> None:
    time_process({**spec, "machine": Ssh.model_validate(on).machine()}, folder)


@pytest.mark.slow  # for the fork
def test_nothing_is_left_where_whoever_asked_is_killed(server: Server, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    spec = spec_of(tmp_path, code=SLEEPS.format(mark=str(mark)))
    process = forked.start(asking, server.on(), spec, tmp_path)
    while not mark.exists():
        assert process.is_alive()
        time.sleep(0.05)
    process.kill()
    process.join()
    assert server.left() == []
    assert sleeping(server.device) == []
