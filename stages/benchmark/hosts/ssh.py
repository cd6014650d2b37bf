"""A device over SSH: what it is called, and how it is reached."""

import shlex
import shutil
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, JsonValue, ValidationInfo

from stages.benchmark.hosts.device import Device
from stages.benchmark.hosts.host import Host, Machine, Size
from stages.benchmark.hosts.known import known_keys


def _found(file: Path, info: ValidationInfo) -> Path:
    """A file of ours; a relative one lies beside the pipeline file."""
    return (info.context["folder"] if info.context else Path()) / file.expanduser()


def _without_port(address: str) -> str:
    """An address that has no port, for OpenSSH's client takes it for a part of the name."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and host and ":" not in host:
        raise ValueError(f"{host}, with `port: {port}` beside it")
    return address


Address = Annotated[str, Field(pattern=r"^([^\s@-][^\s@]*@)?[^\s@-][^\s@]*$"), AfterValidator(_without_port)]
"""Nothing that the client could take for an option."""
OurFile = Annotated[Path, AfterValidator(_found)]

ALWAYS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "ControlMaster": "no",
    "ControlPath": "none",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
    "LogLevel": "ERROR",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
}
"""Whatever the user's configuration of OpenSSH says."""


class Ssh(Host):
    """A device that is reached by OpenSSH's client and has a Python with numpy and the runtime, and nothing of ours."""

    is_far: ClassVar[bool] = True

    ssh: Address = Field(description="user@host, or a name that the configuration of OpenSSH has")
    python: str = Field(
        "python3",
        min_length=1,
        description="the interpreter there that has numpy and the runtime, such as ~/env/bin/python",
    )
    port: int | None = Field(None, ge=1, le=65535, description="22, unless OpenSSH's configuration says otherwise")
    identity: OurFile | None = Field(None, description="private key; OpenSSH's own choice unless given")
    known_hosts: OurFile | None = Field(None, description="its host key; OpenSSH's own files unless given")
    connect_timeout: int = Field(10, ge=1, description="seconds that it may take to answer")
    timeout: float = Field(600, gt=0, description="seconds that a process there may take, and a file on its way")
    largest: Size = Field(10**9, description="bytes of a file of answers at most, such as 1 GB")

    @property
    def name(self) -> str:
        """Such as "ssh: pi@192.168.0.7"."""
        return f"ssh: {self.ssh}{f':{self.port}' if self.port else ''}"

    def missing(self, threads: int) -> str | None:
        """Why it cannot be reached: there is no client, or a file that is named is not there."""
        if shutil.which("ssh") is None:
            return "OpenSSH's client is not installed: apt-get install openssh-client"
        named = {"identity": self.identity, "known_hosts": self.known_hosts}
        absent = [f"`{key}` is {file}, which is no file" for key, file in named.items() if file and not file.is_file()]
        return absent[0] if absent else None

    def rests_on(self) -> dict[str, JsonValue]:
        """The digest of the host keys that are known of it, as another device has another one."""
        return {"host_keys": known_keys(["ssh", *self._options(), "-G", "--", self.ssh], self.known_hosts)}

    def machine(self) -> Machine:
        """What runs processes there."""
        return Device(self)

    def command(self, code: str) -> list[str]:
        """What runs code in Python there, without a shell here; for the one there all is quoted but a first ~/."""
        home = "~/" if self.python.startswith("~/") else ""
        remote = f"{home}{shlex.quote(self.python.removeprefix(home))} -c {shlex.quote(code)}"
        return ["ssh", *self._options(), "--", self.ssh, remote]

    def _options(self) -> list[str]:
        options = {**ALWAYS, "ConnectTimeout": str(self.connect_timeout)}
        if self.known_hosts:
            options |= {"UserKnownHostsFile": _quoted(self.known_hosts), "GlobalKnownHostsFile": "/dev/null"}
        if self.identity:
            options |= {"IdentityFile": _quoted(self.identity), "IdentitiesOnly": "yes"}
        if self.port:
            options["Port"] = str(self.port)
        return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def _quoted(file: Path) -> str:
    """A path as OpenSSH reads it where it has spaces, quotes or what would be replaced."""
    text = str(file).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'
