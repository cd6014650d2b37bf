"""A device over SSH: this machine, by a real server on loopback."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ResourceError, StageError
from stages.benchmark.hosts import device as module
from stages.benchmark.hosts.machines import Machines
from stages.benchmark.hosts.ssh import Ssh
from stages.benchmark.processes.process import answers, time_process
from tests.devices import SLEEPS, Server, free_port, python_with, served, sleeping, spec_of
from tests.graphs import products

pytestmark = served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as device:
        yield device


def timed(server: Server, folder: Path, on: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """What a process on the device tells; nothing is left there."""
    with Machines() as machines:
        machine = machines.of(Ssh.model_validate(server.on(**(on or {}))))
        _, facts = time_process({**spec_of(folder, **rest), "machine": machine}, folder)
    assert server.left() == []
    return facts


def test_it_times_and_tells_of_the_device(server: Server, tmp_path: Path) -> None:
    facts = timed(server, tmp_path)
    assert facts["description"]["execution_provider"] == "CPUExecutionProvider"
    assert 0 < facts["startup"]["imports_s"] < 60
    assert facts["device"]["cores"] == os.cpu_count()
    assert facts["device"]["python"] == sys.version.split()[0]
    assert facts["device"]["before"].keys() == {"temperature_c", "clock_mhz", "load"} == facts["device"]["after"].keys()


def test_a_file_is_sent_once_and_answers_come_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    send = module.Device._send
    monkeypatch.setattr(
        module.Device, "_send", lambda self, file, *rest: (sent.append(file.name), send(self, file, *rest))
    )
    (tmp_path / "other").mkdir()
    first, other = products(tmp_path / "m.onnx", 2).path, products(tmp_path / "other" / "m.onnx", 3).path
    batches = [{"input": np.random.default_rng(i).random((2, 32), np.float32)} for i in range(3)]
    with Machines() as machines:
        spec = {"machine": machines.of(Ssh.model_validate(server.on())), "runner": "onnxruntime", "threads": 1}
        for model in (first, first, other):
            got = list(answers({**spec, "model": str(model)}, iter(batches), tmp_path))
            # The weights are the identity.
            assert all(np.allclose(one["output"], batch["input"]) for one, batch in zip(got, batches, strict=True))
    assert [name for name in sent if not name.endswith(".py")] == [
        "m.onnx",
        "batches.npz",
        "batches.npz",
        "m.onnx",
        "batches.npz",
    ]
    assert server.left() == []


@pytest.mark.parametrize(("on", "message"), [
    ({"known_hosts": "{folder}/stranger"}, r"its host key is another one than the one that is known\. Find out"),
    ({"known_hosts": "/dev/null"}, r"its host key is not known\. Compare its fingerprint"),
    ({"identity": "{folder}/other"}, r"it refused the login: .*Permission denied \(publickey\)\. Give an `identity`"),
    ({"port": "{free}"}, r"it cannot be reached: .*Connection refused"),
    ({"ssh": "no-such-host.invalid"}, r"it cannot be reached: .*Could not resolve"),
    ({"python": "/no such/python"}, r"`python` is /no such/python, which it cannot run: .*No such file"),
    ({"python": "{folder}/known"}, r"`python` is \S+/known, which it cannot run: .*Permission denied"),
    ({"python": "{folder}/old"}, r"which it cannot run: Python 3\.8 is too old: 3\.10 or newer\. Give the path"),
    ({"python": "/bin/true"}, r"no Python began to answer there: it ended with 0"),
])  # fmt: skip
def test_one_that_cannot_be_used_is_told_by_its_reason(
    server: Server, tmp_path: Path, on: dict[str, Any], message: str
) -> None:
    (server.folder / "stranger").write_text(f"[127.0.0.1]:{server.port} {(server.folder / 'other.pub').read_text()}")
    old = f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 8, 1)\n$2"\n'
    (server.folder / "old").write_text(old)
    (server.folder / "old").chmod(0o755)
    free = free_port()
    changes = {key: value.format(folder=server.folder, free=free) for key, value in on.items()}
    changes |= {"port": int(changes["port"])} if "port" in changes else {}
    with pytest.raises(StageError, match=message) as raised:
        timed(server, tmp_path, changes)
    assert str(raised.value).startswith("ssh: ")


def test_what_is_missing_there_is_named_with_what_installs_it(server: Server, tmp_path: Path) -> None:
    python = python_with(tmp_path / "numpy", "numpy")
    with pytest.raises(
        StageError, match=r"onnxruntime is not installed for \S+ there\. There: \S+ -m pip install onnx"
    ):
        timed(server, tmp_path, {"python": python})
    python = python_with(tmp_path / "nothing")
    with pytest.raises(StageError, match=r"numpy is not installed for \S+ there\. There: \S+ -m pip install numpy\.$"):
        timed(server, tmp_path, {"python": python})


def test_one_that_goes_away_in_the_middle_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    mark, children = tmp_path / "mark", list[int]()
    spec = spec_of(tmp_path, code=SLEEPS.format(mark=str(mark)))

    def leave(server: Server) -> None:
        while not mark.exists():
            time.sleep(0.05)
        children.extend(sleeping(server.device))
        server.close()

    with Server(tmp_path / "server") as server, Machines() as machines:
        machine = machines.of(Ssh.model_validate(server.on()))
        leaving = Thread(target=leave, args=(server,), daemon=True)
        leaving.start()
        with pytest.raises(StageError, match=r"it went away while a process timed \S+m\.onnx: .*(closed|reset|lost)"):
            time_process({**spec, "machine": machine}, tmp_path)
        leaving.join()
        with pytest.raises(StageError, match="it went away while a process timed"):  # and is not waited for again
            machine.ready()
    assert server.left() == []
    assert children
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_one_that_stands_still_is_not_waited_for(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    spec = spec_of(tmp_path, code=SLEEPS.format(mark=str(mark)))

    def stop(server: Server) -> None:
        while not mark.exists():
            time.sleep(0.05)
        server.stop()

    with Server(tmp_path / "server") as server, Machines() as machines:
        Thread(target=stop, args=(server,), daemon=True).start()
        machine = machines.of(Ssh.model_validate(server.on()))
        with pytest.raises(StageError, match="it went away while a process timed"):
            time_process({**spec, "machine": machine}, tmp_path)


def test_one_that_takes_too_long_is_ended(server: Server, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(StageError, match=r"the process that timed \S+ had not ended after 3 s\. Raise `timeout`"):
        timed(server, tmp_path, {"timeout": 3}, code=SLEEPS.format(mark=str(mark)))
    assert mark.exists()
    assert server.left() == []
    assert sleeping(server.device) == []


def test_one_that_is_killed_is_a_matter_of_memory(server: Server, tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(ResourceError, match=r"ssh: 127\.0\.0\.1:\d+: the process that timed \S+ was killed"):
        timed(server, tmp_path, code=code)


def test_what_fails_there_is_told_with_its_last_lines(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"the process that timed \S+ ended with 1: it knows no Gemm$"):
        timed(server, tmp_path, code="def load(spec):\n    raise SystemExit('it knows no Gemm')\n")


def test_a_result_that_is_too_large_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"result\.json has \d+ B, more than the 20 B of `largest`"):
        timed(server, tmp_path, {"largest": 20})


def test_another_digest_than_ours_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = module.file_digest
    monkeypatch.setattr(module, "file_digest", lambda file: "0" if file.name == "m.onnx" else digest(file))
    with pytest.raises(StageError, match=r"the digest of m\.onnx there is another one than here"):
        timed(server, tmp_path)


def test_what_it_has_no_room_for_is_told(tmp_path: Path) -> None:
    # Files of 16 kB at most; and a shell that greets.
    line = 'ForceCommand ulimit -f 16; echo welcome; eval "$SSH_ORIGINAL_COMMAND"'
    with (
        Server(tmp_path / "server", line) as server,
        pytest.raises(StageError, match=r"it could not keep m\.onnx: .*File too large"),
    ):
        timed(server, tmp_path, layers=20)


def test_the_interpreter_may_lie_in_the_home_there_and_have_any_name(server: Server, tmp_path: Path) -> None:
    name = 'it\'s a $(touch mark) "python"'
    (server.folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (server.folder / name).chmod(0o755)
    timed(server, tmp_path, {"python": str(server.folder / name)})
    assert Ssh(ssh="pi@board", python="~/my env/python").command("1")[-1] == "~/'my env/python' -c 1"
