"""Whether benchmark.latency can be believed: beside each runtime's own tool, of a model and itself, of a slower one.

    python benchmarks/latency.py --part tools [--rounds 10] [--seconds 2]
    python benchmarks/latency.py --part same [--trials 40] [--effort quick]
    python benchmarks/latency.py --part slower [--trials 20] [--effort full] [--share 0.1]

One thread, batch 1, a network of convolutions.

- tools: the median of our process over that of the runtime's own tool on the same file, in turns, each in a fresh
  process: OpenVINO's benchmark_app, LiteRT's benchmark_litert_model (where `shrink runtimes install litert` was run),
  and the loop of onnxruntime_perf_test, which no wheel has, in Python (planted/perf_test.py). Aim: within 5 %, or
  explained: ours is what a caller in Python waits for, with inputs and outputs as arrays; benchmark_app counts the
  inference alone, and the tools of OpenVINO and LiteRT round to 0.01 ms.
- same: one model as model and baseline, beside a known load on the last core: a process that writes 64 MB again and
  again for `--period` seconds, and then rests as long; we have the other cores. Counts `faster` and `slower`, which
  are false. Aim: at most 2 of 40.
- slower: the model waits, busily, a tenth of what each inference took (planted/busy.py). Counts `slower`. Aim: 18 of
  20.
"""

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, NamedTuple

import torch
from interleaving import neighbours

from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.measure.statistics.ratios import interval
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split, classification
from stages.benchmark.conversion import save_inputs
from stages.benchmark.latency import Latency
from stages.benchmark.processes.module import pools
from stages.benchmark.processes.process import Spec, time_process
from stages.benchmark.runtimes.litert import LiteRT

PLANTED = Path(__file__).with_name("planted")
EXAMPLE = {"input": torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
SAID = re.compile(r"Median: +([\d.]+) (ms|us)")  # by benchmark_app


class Tool(NamedTuple):
    """A runtime's own tool: what we are told to time, its command, and how its median in milliseconds is read."""

    name: str
    spec: Spec
    command: list[str]
    read: Callable[[str], float]


def main() -> None:
    """Print the table of one part, and how busy the machine was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("tools", "same", "slower"), required=True)
    parser.add_argument("--rounds", type=int, default=10, help="of tools")
    parser.add_argument("--seconds", type=float, default=2, help="of each process of tools")
    parser.add_argument("--trials", type=int, help="40 for same, 20 for slower")
    parser.add_argument("--effort", choices=("quick", "full"), help="quick for same, full for slower")
    parser.add_argument("--share", type=float, default=0.1, help="how much longer the slower model takes")
    parser.add_argument("--period", type=float, default=10, help="seconds for which the load works, then rests")
    given = parser.parse_args()
    began, before = monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        {"tools": beside_tools, "same": same, "slower": slower}[given.part](given, Path(name))
    cores, after = os.cpu_count(), os.getloadavg()[0]
    print(f"\n{monotonic() - began:.0f} s, {cores} cores, load before {before:.1f}, after {after:.1f}")


def beside_tools(given: argparse.Namespace, folder: Path) -> None:
    """Our median over the tool's, for each runtime."""
    print(f"{'runtime':12} {'ours ms':>9} {'tool ms':>9}  ours / tool [95 %]")
    for tool in _tools(folder, given.seconds):
        pairs = [_pair(tool, folder, tool_first=bool(i % 2)) for i in range(given.rounds)]
        ours, theirs = (median(side) for side in zip(*pairs, strict=True))
        ratio = interval([log(own / other) for own, other in pairs])
        reach = "" if ratio.low is None else f" [{ratio.low:.3f}, {ratio.high:.3f}]"
        print(f"{tool.name:12} {ours:9.3f} {theirs:9.3f}  {ratio.value:.3f}{reach}", flush=True)


def same(given: argparse.Namespace, folder: Path) -> None:
    """Verdicts on a model beside itself, while another process is busy."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:-1])
    print(
        f"load: writes 64 MB again and again on core {cores[-1]}, {given.period:g} s on and off; we have {cores[:-1]}"
    )
    with neighbours(1, given.period, cores[-1]):
        _trials("onnxruntime", given.trials or 40, given.effort or "quick", folder, {"faster", "slower"}, "false")


def slower(given: argparse.Namespace, folder: Path) -> None:
    """Verdicts on a model that takes longer by a known share."""
    runtime = {"use": "busy.py", "share": given.share}
    _trials(runtime, given.trials or 20, given.effort or "full", folder, {"slower"}, "slower")


def _trials(runtime: Any, count: int, effort: str, folder: Path, wanted: set[str], title: str) -> None:
    file, _ = _files(folder)
    settings = {"runtimes": [runtime], "effort": effort, "examples": 0, "score": False}
    stage = Latency.model_validate(settings, context={"folder": PLANTED})
    verdicts = Counter[str]()
    for trial in range(count):
        model, baseline = (OnnxModel(file, EXAMPLE) for _ in range(2))
        found: Any = stage.measure({"model": model}, _context(folder / f"trial-{trial}", baseline))
        ((row,),) = found.values()
        ratio, noise = row["ratio"], row["noise"]
        verdicts[ratio["verdict"]] += 1
        print(
            f"{trial + 1:3} {ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]  noise "
            f"[{noise['low']:.3f}, {noise['high']:.3f}]  {ratio['verdict']}",
            flush=True,
        )
    print(f"{title}: {sum(verdicts[verdict] for verdict in wanted)} of {count} at {effort}; {dict(verdicts)}")


def _tools(folder: Path, seconds: float) -> Iterator[Tool]:
    file, model = _files(folder)
    inputs = save_inputs(EXAMPLE, folder / "inputs.npz")
    how = {"inputs": inputs, "threads": 1, "warmup": 20, "seconds": seconds, "iterations": None}
    loop = [sys.executable, str(PLANTED / "perf_test.py"), str(file), inputs, "1", str(seconds)]
    yield Tool("onnxruntime", {**how, "runner": "onnxruntime", "model": str(file)}, loop, float)
    app = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(file), "-d", "CPU", "-t", f"{seconds:.0f}"]
    app += ["-api", "sync", "-hint", "none", "-nstreams", "1", "-nthreads", "1", "-infer_precision", "f32"]
    yield Tool("openvino", {**how, "runner": "openvino", "model": str(file), "precision": "f32"}, app, _said)
    litert = LiteRT(use="litert")
    if missing := litert.missing():
        print(f"{'litert':12} {missing}")
        return
    ctx = _context(folder, OnnxModel(file, EXAMPLE))
    spec: Spec = {**litert.convert(model, ctx, folder, batch=1), "python": litert.python}
    result = folder / "litert.json"
    tool = [litert.python, "-m", "ai_edge_litert.tools.benchmark_litert_model", "--model", str(spec["model"])]
    tool += ["--num_threads", "1", "--num_runs", str(max(int(seconds * 200), 50)), "--result_json", str(result)]
    yield Tool("litert", {**how, **spec}, tool, lambda _: json.loads(result.read_text())["latency"]["median_ms"])


def _pair(tool: Tool, folder: Path, tool_first: bool) -> tuple[float, float]:
    """Our median and the tool's, in milliseconds."""
    first = _told(tool) if tool_first else None
    ours = median(time_process(tool.spec, folder)[0])
    return ours, _told(tool) if first is None else first


def _told(tool: Tool) -> float:
    ended = subprocess.run(tool.command, capture_output=True, text=True, env={**os.environ, **pools(1)}, check=False)
    if ended.returncode:
        sys.exit(f"{tool.name}: {' '.join(tool.command)} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return tool.read(ended.stdout)


def _said(text: str) -> float:
    (figure,) = SAID.findall(text)
    return float(figure[0]) / (1 if figure[1] == "ms" else 1000)


def _files(folder: Path) -> tuple[Path, TorchModel]:
    """The network as an ONNX file, of one image at a time as the tools take it, and as it is."""
    logging.disable(logging.WARNING)  # the exporter speaks of packages that are not here
    torch.manual_seed(0)
    model = TorchModel.build(Reference(use="net.py:network", folder=PLANTED), EXAMPLE)
    file = folder / "net.onnx"
    names = {"input_names": ["input"], "output_names": ["output"]}
    torch.onnx.export(model.module, tuple(EXAMPLE.values()), file, external_data=False, verbose=False, **names)
    return file, model


def _context(folder: Path, baseline: OnnxModel) -> Context:
    """What the stage needs of a run: a folder, and the baseline."""
    data = Split([(EXAMPLE["input"][0], 0)])

    @contextmanager
    def silent(description: str, total: int) -> Iterator[Callable[..., None]]:
        yield lambda steps=1, note="": None

    return Context(
        classification(data, data, data),
        baseline=baseline,
        directory=folder,
        device=torch.device("cpu"),
        seed=0,
        log=logging.getLogger("benchmark"),
        progress=silent,
        report=lambda name, value: None,
        deployed=lambda model: model,  # type: ignore[arg-type, return-value]
        warn=lambda text: None,
    )


if __name__ == "__main__":
    main()
