"""A device over SSH that is this machine: OpenSSH's server on loopback, with keys of its own and its own folders."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch

from stages.benchmark.conversion import save_inputs
from tests.graphs import products

SERVER = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv TMPDIR={folder}/device
"""
SLEEPS = "import time, pathlib; pathlib.Path({mark!r}).write_text('here'); time.sleep(600)\n"
"""A runner that never ends."""
OURS = Path(np.__file__).parents[1]
served = pytest.mark.skipif(
    not (SERVER and shutil.which("ssh") and shutil.which("ssh-keygen")), reason="OpenSSH's server is not installed"
)


class Server:
    """One that listens; its sessions put what they get below `device`. `line` is one more of its configuration."""

    def __init__(self, folder: Path, line: str = "") -> None:
        self.folder, self.device = folder, folder / "device"
        self.device.mkdir(parents=True)
        for name in ("host", "user", "other"):
            key(folder / name)
        shutil.copyfile(folder / "user.pub", folder / "authorized_keys")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where it goes before a login
        self.port = free_port()
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {(folder / 'host.pub').read_text()}")
        (folder / "config").write_text(CONFIG.format(port=self.port, folder=folder) + line)
        command = [str(SERVER), "-D", "-e", "-f", str(folder / "config")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, start_new_session=True)
        self._wait()

    def _wait(self) -> None:
        for _ in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError((self.folder / "log").read_text())

    def on(self, **changes: Any) -> dict[str, Any]:
        """What stands under `on:`."""
        files = {"identity": str(self.folder / "user"), "known_hosts": str(self.folder / "known")}
        return {"ssh": "127.0.0.1", "port": self.port, "python": sys.executable, **files, **changes}

    def left(self) -> list[str]:
        """What lies on the device, once its last session has ended."""
        for _ in range(400):
            if not any(self.device.iterdir()):
                break
            time.sleep(0.05)
        return sorted(path.name for path in self.device.iterdir())

    def stop(self) -> None:
        """Have its sessions stand still."""
        for pid in below(self.process.pid):
            os.kill(pid, signal.SIGSTOP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it with all sessions."""
        if self.process.poll() is None:
            for pid in [*below(self.process.pid), self.process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()


def key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)


def python_with(folder: Path, *packages: str) -> str:
    """The interpreter of an environment that has these packages of ours and no others."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    for package in packages:
        for path in OURS.glob(f"{package}*"):
            (own / path.name).symlink_to(path)
    return str(folder / "bin" / "python")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def below(pid: int) -> list[int]:
    """The sessions of a server: its children and theirs, as far as they belong to it."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if "sshd" in Path(f"/proc/{child}/comm").read_text():
            found += [int(child), *below(int(child))]
    return found


def sleeping(device: Path) -> list[int]:
    """Processes whose folder is the device's."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            found += [int(entry.parent.name)] if device in entry.readlink().parents else []
        except OSError:
            continue
    return found


def spec_of(folder: Path, **rest: Any) -> dict[str, Any]:
    """What a process is told that times; `code` is that of a runner of the user's, `layers` are of 4 kB."""
    model = products(folder / "m.onnx", rest.pop("layers", 2)).path
    inputs = save_inputs({"input": torch.rand(2, 32)}, folder / "i.npz")
    spec = {"runner": "onnxruntime", "requirement": "onnxruntime", "model": str(model), "inputs": inputs, "threads": 1}
    if code := rest.pop("code", ""):
        (folder / "own_runner.py").write_text(code)
        spec["runner"] = str(folder / "own_runner.py")
    return {**spec, "warmup": 1, "seconds": 1, "iterations": 2, **rest}
