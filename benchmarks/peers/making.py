"""Each way to compress a network as a fresh process, in an environment of its tool's own, and what that cost."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUNTIME = ("onnx==1.23.2", "onnxruntime==1.31.1")
# olive-ai 0.13.0 imports requests, onnx-neural-compressor 1.0 prettytable and scipy, and neither requires them.
REQUIREMENTS = {
    "olive": ("olive-ai==0.13.0", "requests==2.34.2", "torch==2.13.0", *RUNTIME),
    "nncf": ("nncf==3.4.0", "openvino==2026.4.1", *RUNTIME),
    "optimum": (
        *("optimum==2.1.0", "optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "datasets==5.0.1"),
        *("torch==2.13.0", *RUNTIME),
    ),
    "onnx_neural_compressor": (
        *("onnx-neural-compressor==1.0", "prettytable==3.18.0", "scipy==1.17.1", "numpy==1.26.4", *RUNTIME),
    ),
}


class Way(NamedTuple):
    """A tool and how it is used: of ours the strategy in ours.yaml, else what `by_TOOL.py` calls `--method`."""

    tool: str
    method: str

    @property
    def title(self) -> str:
        """For tables."""
        return f"{self.tool.replace('_', '-')}, {self.method}"


WAYS = {
    "cifar10": (
        *(Way(tool, "static") for tool in REQUIREMENTS),
        *(Way("nncf", "accuracy"), Way("nncf", "example")),
        *(Way("ours", method) for method in ("static + pack", "static keep + pack", "static keep 1 point + pack")),
    ),
    "sst2": (
        *(Way(tool, "static") for tool in REQUIREMENTS),
        *(Way(tool, "dynamic") for tool in REQUIREMENTS if tool != "nncf"),
        Way("nncf", "accuracy"),
        *(Way("ours", method) for method in ("dynamic + pack", "weights keep")),
    ),
}
"""By network; dynamic quantization is for encoders of text, of which NNCF's example takes half an hour."""
CONTROLLED = ("accuracy", "example")


class Cost(NamedTuple):
    """What a way took, and its file.

    Args:
        seconds: wall time of the process, with all that it imports.
        stage_seconds: of ours alone, that of the stages, without loading, measuring and reporting; else None.
        peak_bytes: memory of its largest process.
        size_bytes: of the file, with its external data.
        file: the ONNX file, None where the tool failed.
        error: the last line that it wrote then.
    """

    seconds: float
    stage_seconds: float | None
    peak_bytes: int
    size_bytes: int
    file: Path | None
    error: str


def install(tool: str, environments: Path) -> None:
    """Make the environment of a tool, unless it is there."""
    folder = environments / tool
    if (folder / "ready").is_file() or tool == "ours":
        return
    print(f"installing {tool} in {folder}", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(_python(folder)), "-m", "pip", "install", "--quiet", "--no-cache-dir", *REQUIREMENTS[tool]]
    subprocess.run(pip, check=True)
    (folder / "ready").touch()


def made(way: Way, folder: Path, environments: Path, drop: float) -> Cost:
    """What the way makes of fp32.onnx of a network's folder, in a folder of its own there, or has made before."""
    out = folder / f"{way.tool}-{way.method.replace(' + ', ' ').replace(' ', '-')}"
    kept = out / "cost.json"
    if not kept.is_file():
        cost = _make(way, folder, out, environments, drop)
        kept.write_text(json.dumps(cost._asdict(), default=str))
    content = json.loads(kept.read_text())
    return Cost(**content | {"file": content["file"] and Path(content["file"])})


def _make(way: Way, folder: Path, out: Path, environments: Path, drop: float) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with tempfile.TemporaryDirectory() as work:
        command = _ours(way, folder, Path(work)) if way.tool == "ours" else _theirs(way, folder, out, environments)
        command += ["--drop", str(drop)] if way.method in CONTROLLED else []
        log, result = out / "log.txt", Path(work) / "cost.json"
        python = [sys.executable, str(HERE / "measured.py"), str(result), *command]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        with log.open("w") as file:  # in a folder of its own, for tools leave files where they run
            subprocess.run(python, cwd=work, env=environment, stdout=file, stderr=subprocess.STDOUT, check=True)
        cost = json.loads(result.read_text())
        stage_seconds = _take(Path(work), out) if way.tool == "ours" and not cost["code"] else None
    file = out / "model.onnx"
    lines = log.read_text().strip().splitlines() or ["it wrote nothing"]
    failed = bool(cost["code"]) or not file.is_file()
    sizes = [0 if failed else part.stat().st_size for part in out.iterdir() if part != log]
    error = f"ended with {cost['code']}: {lines[-1]}" if failed else ""
    return Cost(cost["seconds"], stage_seconds, cost["peak_bytes"], sum(sizes), None if failed else file, error)


def _theirs(way: Way, folder: Path, out: Path, environments: Path) -> list[str]:
    files = [str(path) for path in (folder / "fp32.onnx", folder / "samples.npz", out / "model.onnx")]
    script = str(HERE / f"by_{way.tool}.py")
    return [str(_python(environments / way.tool)), script, *files, "--method", way.method]


def _ours(way: Way, folder: Path, work: Path) -> list[str]:
    command = [sys.executable, "-m", "pipeline", "run", str(HERE / "ours.yaml"), "--strategy", way.method]
    places = {"model.onnx": "fp32.onnx", "task.samples": "samples.npz", "task.test": "test.npz"}
    sets: Sequence[str] = [word for key, name in places.items() for word in ("--set", f"{key}={folder / name}")]
    return [*command, *sets, "--runs", str(work / "runs")]


def _take(work: Path, out: Path) -> float:
    """Copy the file of our run, and give the seconds of its stages."""
    (path,) = work.glob("runs/*/record.json")
    record: dict[str, Any] = json.loads(path.read_text())
    (out / "model.onnx").write_bytes((path.parent / record["stages"][-1]["file"]).read_bytes())
    return float(sum(stage["seconds"] for stage in record["stages"]))


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"
