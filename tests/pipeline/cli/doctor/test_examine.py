"""`shrink doctor`: what it says of this machine, of machines that are made up, and of what answers or does not."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.code import extras
from pipeline.base.data import hub
from pipeline.cli.doctor import files, machine, packages, tracking
from pipeline.cli.doctor.finding import Finding, as_json, is_missing
from tests.aliases import Patch
from tests.forked import shrink

ROOT = Path(__file__).parents[4]
HEAVY = {"torch", "mlflow", "transformers", "datasets", "optimum", "accelerate", "scipy"}


def test_this_machine_is_well_enough_and_nothing_is_written(tmp_path: Path) -> None:
    done = shrink("doctor", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["ok"]
    rows = {(row["concern"], row["name"]): row for row in found["findings"]}
    assert rows["packages", "torch"]["found"].startswith(metadata.version("torch"))
    assert "CPU" in rows["runtimes", "ONNX Runtime"]["found"]
    assert rows["tracking", "MLflow"]["found"] == f"{tmp_path / 'runs' / 'mlflow.db'} will be made"
    assert list(tmp_path.iterdir()) == []
    table = shrink("doctor", cwd=tmp_path)
    assert table.returncode == 0
    assert all(word in table.stdout for word in ("packages", "runtimes", "processor", "GPU", "room", "tracking"))


def test_a_tracking_server_that_is_down_matters_where_it_is_required(tmp_path: Path) -> None:
    down = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    lax, strict = (shrink("doctor", *words, cwd=tmp_path, **down) for words in ([], ["--require-tracking"]))
    assert (lax.returncode, strict.returncode) == (0, 2)
    assert "does not answer" in lax.stdout
    assert "missing" in strict.stdout


def test_without_a_config_nothing_is_imported_that_takes_seconds() -> None:
    code = "import sys; from pipeline.cli.doctor.examine import examine; examine(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stdout.split()) == set()


def test_the_table_of_versions_is_that_of_the_constraints_and_of_the_project() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.MULTILINE))
    assert packages.TESTED.items() <= pins.items()
    assert packages.NEWEST["transformers"] == re.findall(r"transformers 5: transformers==(\S+)", constraints)[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(packages.TESTED) <= {re.split("[<>=!~ ]", name)[0] for name in project["dependencies"]}


@pytest.fixture
def installed(monkeypatch: Patch) -> Callable[..., dict[str, Finding]]:
    """installed(onnx=...): what is said where these are installed, by name."""

    def make(**versions: str) -> dict[str, Finding]:
        found = {name.replace("_", "-"): number for name, number in versions.items()}
        for module in (packages, extras):
            monkeypatch.setattr(module, "version", found.get)
        return {finding.name: finding for finding in packages.packages()}

    return make


def test_old_and_absent_libraries_are_told_apart(installed: Callable[..., dict[str, Finding]]) -> None:
    found = installed(torch="2.13.0+cpu", onnx="1.9.1", numpy="10.0", mlflow_skinny="3.17.2", soundfile="0.14.0")
    assert {name: found[name].state for name in ("torch", "onnx", "numpy", "mlflow", "onnxruntime")} == {
        "torch": "ok", "onnx": "warning", "numpy": "ok", "mlflow": "ok", "onnxruntime": "missing",
    }  # fmt: skip
    assert f"older than {packages.TESTED['onnx']}" in found["onnx"].found
    newer = installed(torch="2.99.0+cpu", transformers=packages.NEWEST["transformers"])
    assert (newer["torch"].state, newer["transformers"].state) == ("warning", "ok")
    assert "newer than 2.14.1, the newest that was tried" in newer["torch"].found
    assert found["mlflow"].found == "3.17.2 of mlflow-skinny"
    assert (found["extra `audio`"].state, found["extra `timm`"].state) == ("ok", "note")
    assert found["extra `timm`"].fix == "pip install 'shrinkline[timm]'"
    half = installed(soundfile="0.14.0", optimum="2.1.0")["extra `optimum`"]
    assert (half.state, half.found) == ("warning", "optimum 2.1.0; optimum-onnx is not installed")
    assert is_missing(list(found.values()))
    assert as_json([found["torch"]])["ok"]


def test_instructions_are_named_and_saturation_is_a_warning() -> None:
    fast = machine.instructions({"avx2", "avx512f", "avx512_vnni", "amx_int8"})
    assert (fast.state, fast.found) == ("ok", "AVX2, AVX-512, VNNI, AMX int8")
    slow = machine.instructions({"avx2", "avx512f"})
    assert slow.state == "warning"
    assert "reduce_range: true" in slow.fix
    assert machine.instructions({"asimd", "asimddp"}).found == "dot products"


def test_threads_beyond_a_containers_limit_are_a_warning() -> None:
    assert machine.threads(8, None, None) == Finding("processor", "threads", "ok", "8 cores")
    limited = machine.threads(8, 2.5, None)
    assert (limited.state, limited.found) == ("warning", "8 cores, limited to 2.5 by the container")
    assert "OMP_NUM_THREADS=2" in limited.fix
    assert machine.threads(8, 2.5, "2").state == "ok"


def groups(folder: Path, lines: str, **files: str) -> dict[str, Path]:
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "self" / "cgroup").write_text(lines)
    for name, text in files.items():
        path = folder / "groups" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {"proc": folder / "proc", "root": folder / "groups"}


def test_the_tightest_limit_of_all_groups_above_counts(tmp_path: Path) -> None:
    where = groups(
        tmp_path, "0::/pod/box\n", pod__cpu_dot_max="150000 100000\n", pod__box__cpu_dot_max="max 100000\n",
        pod__memory_dot_max="max\n", pod__box__memory_dot_max="2000000000\n",
    )  # fmt: skip
    assert (machine.limit("cpu", **where), machine.limit("memory", **where)) == (1.5, 2e9)


def test_limits_of_the_first_version_of_groups(tmp_path: Path) -> None:
    where = groups(
        tmp_path, "4:cpu,cpuacct:/box\n3:memory:/box\n1:name=systemd:/x\n",
        cpu__box__cpu_dot_cfs_quota_us="50000\n", cpu__box__cpu_dot_cfs_period_us="100000\n",
        cpu__cpu_dot_cfs_quota_us="-1\n", cpu__cpu_dot_cfs_period_us="100000\n",
        memory__box__memory_dot_limit_in_bytes="1000000\n", memory__memory_dot_limit_in_bytes="9223372036854771712\n",
    )  # fmt: skip
    assert (machine.limit("cpu", **where), machine.limit("memory", **where)) == (0.5, 1e6)
    assert machine.limit("cpu", proc=tmp_path / "none", root=tmp_path) is None


def test_little_memory_and_disk_are_warnings(tmp_path: Path, monkeypatch: Patch) -> None:
    assert machine.memory(8e9, None).state == "ok"
    assert machine.memory(8e9, 1e9).state == machine.memory(1e9, 8e9).state == "warning"
    assert machine.memory(None, None).state == "note"
    (tmp_path / "meminfo").write_text("MemTotal: 10 kB\nMemAvailable:       4 kB\n")
    assert machine.free_memory(tmp_path / "meminfo") == 4096
    assert machine.disk("runs", tmp_path / "not" / "yet").state == "ok"
    monkeypatch.setattr(machine, "LITTLE_DISK", 1e18)
    assert machine.disk("runs", tmp_path).state == "warning"


@pytest.fixture
def nvidia(tmp_path: Path, monkeypatch: Patch) -> Callable[[str], None]:
    """nvidia(body): puts such a `nvidia-smi` before all others."""

    def make(body: str) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return make


def test_a_gpu_that_torch_cannot_use_is_a_warning(nvidia: Callable[[str], None], monkeypatch: Patch) -> None:
    nvidia('echo "NVIDIA H200, 143771 MiB, 143000 MiB, 570.1"')
    monkeypatch.setattr(machine, "torch_cuda", lambda: None)
    card, torch = machine.gpu()
    told = "NVIDIA H200, 143000 MiB free of 143771 MiB, driver 570.1"
    assert (card.name, card.state, card.found) == ("cuda:0", "ok", told)
    assert (torch.state, torch.found) == ("warning", "the installed torch is built without CUDA")
    assert not machine.usable()
    monkeypatch.setattr(machine, "torch_cuda", lambda: "13.0")
    assert [finding.state for finding in machine.gpu()] == ["ok", "ok"]
    assert machine.usable()


@pytest.mark.parametrize(("body", "seconds", "told"), [
    ("echo 'NVIDIA-SMI has failed'; exit 9", 30, "NVIDIA-SMI has failed"), ("exec sleep 60", 0.1, "does not answer"),
])  # fmt: skip
def test_a_driver_that_fails_or_hangs_is_a_warning(
    nvidia: Callable[[str], None], monkeypatch: Patch, body: str, seconds: float, told: str
) -> None:
    nvidia(body)
    monkeypatch.setattr(machine, "SECONDS", seconds)
    first, *_ = machine.gpu()
    assert first.state == "warning"
    assert told in first.found


@pytest.mark.parametrize(("text", "expected"), [
    ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", "13.0"), ("cuda: Optional[str] = None\n", None),
])  # fmt: skip
def test_torchs_build_is_read_not_imported(tmp_path: Path, monkeypatch: Patch, text: str, expected: str | None) -> None:
    (tmp_path / "version.py").write_text(text)
    made = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: made)
    assert machine.torch_cuda() == expected


class Answer(BaseHTTPRequestHandler):
    """Answers /health and the names that the hub has; is late where the path says so."""

    def do_GET(self) -> None:
        if "late" in self.path:
            time.sleep(1)
        known = ("/health", "/late/health", "/api/datasets/owner/known", "/api/models/known")
        self.send_response(200 if self.path in known else 503 if "broken" in self.path else 404)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def answers() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("path", "seconds", "state", "told"), [
    ("", 30, "ok", "answers: OK"), ("/broken", 30, "missing", "answers 503"), ("/late", 0.1, "missing", "timed out"),
])  # fmt: skip
def test_a_server_is_asked_whether_it_is_well(
    answers: str, monkeypatch: Patch, tmp_path: Path, path: str, seconds: float, state: str, told: str
) -> None:
    monkeypatch.setattr(tracking, "SECONDS", seconds)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{answers}{path}")
    found = tracking.tracking(tmp_path, required=True)
    assert (found.state, told in found.found) == (state, True)
    assert "secret" not in found.found


def test_a_database_is_tried_and_not_changed(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(tracking, "SECONDS", 0.1)
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table t (a)")
        before = path.read_bytes()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        assert tracking.tracking(tmp_path).state == "ok"
        assert path.read_bytes() == before
        connection.execute("begin exclusive")
        locked = tracking.tracking(tmp_path)
        assert (locked.state, "database is locked" in locked.found) == ("warning", True)
    path.write_text("no database at all" * 100)
    assert "not a database" in tracking.tracking(tmp_path, required=True).found
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    assert tracking.tracking(tmp_path).state == "note"


@pytest.fixture
def nothing_cached(tmp_path: Path, monkeypatch: Patch) -> Path:
    for name in (*hub.OFFLINE, "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


def where(name: str, kind: hub.Kind = "datasets", folder: Path = Path("/nowhere")) -> tuple[str, str]:
    found = files.located("task.data", name, kind, (folder,))
    return found.state, found.found


def test_data_are_sought_here_in_the_cache_on_the_hub(nothing_cached: Path, monkeypatch: Patch, answers: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://{answers}")
    assert where("owner/known") == ("ok", f"http://{answers} has it; it will be fetched")
    assert where("known", "models")[0] == "ok"
    state, told = where("owner/unknown")
    assert (state, "answers 404" in told) == ("missing", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert where("owner/known") == ("missing", "not here and not in the cache, and the hub is switched off")
    (nothing_cached / "hf" / "hub" / "datasets--owner--known" / "snapshots" / "1").mkdir(parents=True)
    assert where("owner/known")[0] == "ok"
    assert where("owner/known", "models")[0] == "missing"
    (nothing_cached / "hf" / "datasets" / "other___set").mkdir(parents=True)
    assert where("other/set")[0] == "ok"
    (nothing_cached / "rows").mkdir()
    assert where("rows", folder=nothing_cached) == ("ok", f"{nothing_cached / 'rows'} is here")


@pytest.mark.parametrize("path", ["/data/rows", "../rows", "a/b/c", "~/rows", "my rows"])
def test_a_path_is_never_asked_of_the_hub(nothing_cached: Path, monkeypatch: Patch, path: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert where(path) == ("missing", "there is no such file or folder")


def test_a_hub_that_cannot_be_reached_is_told(nothing_cached: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    state, told = where("owner/name")
    assert (state, "does not answer" in told) == ("missing", True)
