"""A device while a stage times: what it was sent, and the processes that run there."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.base.files import file_digest, files_below
from pipeline.base.formatting import bytes_text
from pipeline.errors import StageError
from stages.benchmark.environments.converter import alone
from stages.benchmark.hosts.connection import BOOTSTRAP, PATIENCE, Connection, Gone
from stages.benchmark.hosts.failures import explained, judged
from stages.benchmark.hosts.files import files_beside
from stages.benchmark.hosts.host import Machine
from stages.benchmark.processes.module import pools
from stages.benchmark.runners.loaded import Spec

CHILD = "stages.benchmark.runners.child"
OURS = ("python", "root", "files")


class Device(Machine):
    """Runs processes on a device, which gets a model once and keeps it until the end.

    Args:
        host: its `Ssh`.
    """

    def __init__(self, host: Any) -> None:
        self.host, self.name = host, host.name
        self.connection: Connection | None = None
        self.failure: StageError | None = None
        self.folders: set[str] = set()

    def ready(self) -> None:
        """Connect, and send the runners, where that is not done. Raises StageError, the same each time."""
        self._connected()

    def run(self, spec: Spec, folder: Path, did: str) -> dict[str, Any]:
        """What a process there tells, and of the `device` what it is, and its sensors before and after."""
        device = self._connected().device
        request = {"do": "run", "module": CHILD, "spec": self._there(spec), "seconds": self.host.timeout}
        answer = self._ask({**request, "environment": pools(spec.get("threads", 1))}, f"while a process {did}")
        judged(answer, self.host, f"the process that {did}", spec.get("requirement", ""))
        result = folder / "result.json"
        self._fetch("result.json", result)
        if "answers" in spec:
            self._fetch("answers.npz", Path(spec["answers"]))
        facts = {name: value for name, value in device.items() if name != "folder"}
        return {**self._told(result), "device": {**facts, "before": answer["before"], "after": answer["after"]}}

    def close(self) -> None:
        """End the connection; what was sent goes with it."""
        if self.connection:
            self.connection.close()

    def _connected(self) -> Connection:
        if self.failure:
            raise self.failure
        if not self.connection:
            try:
                self.connection = Connection(self.host.command(BOOTSTRAP), self.host.connect_timeout + PATIENCE)
                self._send_runners()
            except Gone as gone:
                raise self._failed(gone, "") from None
            except StageError as error:
                self.failure = error
                raise
        return self.connection

    def _send_runners(self) -> None:
        with TemporaryDirectory() as name:
            root = alone(Path(name))
            for file in files_below(root):
                self._send(file, file.relative_to(root).as_posix(), file_digest(file))

    def _there(self, spec: Spec) -> Spec:
        """A spec that names the device's files, which are sent unless they are there."""
        there = {name: value for name, value in spec.items() if name not in OURS}
        kept = {"model": files_beside(spec)}
        others = ["inputs"] * ("inputs" in spec) + ["runner"] * spec["runner"].endswith(".py")
        kept |= {name: {Path(spec[name]).name: Path(spec[name])} for name in others}
        for name, files in kept.items():
            there[name] = self._place(f"{self._sent(files)}/{Path(spec[name]).name}")
        if "batches" in spec:
            batches = Path(spec["batches"])
            self._send(batches, "batches.npz", file_digest(batches))
            there |= {name: self._place(f"{name}.npz") for name in ("batches", "answers")}
        return {**there, "result": self._place("result.json")}

    def _place(self, name: str) -> str:
        return f"{self._connected().device['folder']}/{name}"

    def _sent(self, files: Mapping[str, Path]) -> str:
        """The folder of files there, by their names and digests: what is there is not sent again."""
        digests = {name: file_digest(file) for name, file in files.items()}
        folder = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]
        if folder not in self.folders:
            for name, file in files.items():
                self._send(file, f"{folder}/{name}", digests[name])
            self.folders.add(folder)
        return folder

    def _send(self, file: Path, place: str, digest: str) -> None:
        """Have the device keep a file, and compare the digest of what it reads back."""
        request = {"do": "put", "path": place, "size": file.stat().st_size}
        answer = self._ask(request, f"while it was sent {file.name}", file)
        if problem := answer.get("problem"):
            raise StageError(f"{self.name}: it could not keep {file.name}: {problem}")
        if answer.get("sha256") != digest:
            raise StageError(f"{self.name}: the digest of {file.name} there is another one than here")

    def _told(self, result: Path) -> dict[str, Any]:
        try:
            return dict(json.loads(result.read_bytes()))
        except ValueError:
            raise StageError(f"{self.name}: what the process there told is no JSON") from None

    def _fetch(self, place: str, target: Path) -> None:
        largest = self.host.largest
        target.unlink(missing_ok=True)
        try:
            size = self._connected().fetch(place, target, largest, self.host.timeout)
        except Gone as gone:
            raise self._failed(gone, f"while {place} was fetched") from None
        if size is None:
            raise StageError(f"{self.name}: the process there ended without {place}")
        if size > largest:
            problem = f"{place} has {bytes_text(size)}, more than the {bytes_text(largest)} of `largest`"
            raise StageError(f"{self.name}: {problem}", fix="Raise it, or lower `batch` or `examples`")

    def _ask(self, request: dict[str, Any], during: str, sent: Path | None = None) -> dict[str, Any]:
        try:
            return self._connected().ask(request, self.host.timeout + PATIENCE, sent)
        except Gone as gone:
            raise self._failed(gone, during) from None

    def _failed(self, gone: Gone, during: str) -> StageError:
        """Why it cannot be used, now and later."""
        self.failure = explained(gone, self.host, during)
        return self.failure
