"""Latency of the model beside the baseline's, in fresh and interleaved processes."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, JsonValue

from pipeline.errors import ConfigError, ResourceError, StageError
from pipeline.model import Inputs, Model, OnnxModel, TorchModel
from pipeline.stage import AnyForm, Context, Outlook, Stage, forms
from stages.benchmark.ratios import FEWEST_ROUNDS, compare, judge, percentiles

Count = Annotated[int, Field(ge=1)]
Spec = dict[str, Any]
"""What `stages.benchmark.child` is told."""

Times = dict[str, list[list[float]]]
"""For each of "model", "baseline" and "again": the latencies in milliseconds of each round's process."""

ROOT = Path(__file__).parents[2]


class Latency(Stage):
    """The same model, and in the record its latency as a ratio to the baseline's with a verdict.

    Put it where a claim of speed is made. Each round starts a process for the baseline, one for the model and one more
    for the baseline, in rotated order; the two baselines tell the noise of the machine, below which no claim is made.

    Example:
        - {use: benchmark.latency, threads: [1, 2], batch: [1, 8]}

    Reference: Tomas Kalibera and Richard Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013.
    """

    host_bound: ClassVar[bool] = True

    runtimes: tuple[Literal["onnxruntime", "torch"], ...] = Field(
        ("onnxruntime",), min_length=1, description="where to run: onnxruntime (the file that is deployed), torch"
    )
    threads: tuple[Count, ...] = Field((1,), min_length=1, description="threads of one inference, each is measured")
    batch: tuple[Count, ...] = Field((1,), min_length=1, description="examples of one inference, each is measured")
    rounds: int = Field(5, ge=1, description="processes of each model; an interval needs 3")
    seconds: float = Field(0.3, gt=0, description="time to sample in each process")
    iterations: int | None = Field(None, ge=1, description="samples of each process, instead of seconds")
    warmup: int = Field(20, ge=0, description="inferences before the samples, in each process")

    def check(self, before: Sequence[Stage], outlook: Outlook) -> Iterable[str]:
        """Refuse torch for an ONNX file; warn of too many threads and of too few rounds."""
        form: type = type(outlook.model)
        for stage in before:
            form = forms(type(stage))[1] or form
        if "torch" in self.runtimes and form is OnnxModel:
            raise ConfigError(**NO_TORCH)
        if max(self.threads) > (cores := _cores()):
            yield f"`threads` has {max(self.threads)} and this machine {cores} cores: threads will wait for each other"
        if self.rounds < FEWEST_ROUNDS:
            yield f"`rounds` is {self.rounds}: with fewer than {FEWEST_ROUNDS} every comparison is inconclusive"

    def run(self, model: AnyForm, ctx: Context) -> AnyForm:
        """The model itself. Raises StageError when a process fails or the runtime cannot run this form."""
        if "torch" in self.runtimes and isinstance(model, OnnxModel):
            raise StageError(**NO_TORCH)
        cells = list(itertools.product(self.threads, self.batch))
        rows: list[JsonValue] = []
        ctx.directory.mkdir(parents=True, exist_ok=True)
        with (
            TemporaryDirectory(dir=ctx.directory.resolve(), prefix="latency-") as folder,
            ctx.progress("latency", len(self.runtimes) * len(cells) * self.rounds) as advance,
        ):
            for runtime in self.runtimes:
                specs, reason = self._specs(model, ctx, Path(folder), runtime)
                for threads, batch in cells:
                    place = {"runtime": runtime, "threads": threads, "batch": batch}
                    inputs = save_inputs(model.example, batch, Path(folder) / "inputs.npz")
                    told = {name: {**spec, "threads": threads, "inputs": inputs} for name, spec in specs.items()}
                    times, provider = self._rounds(told, Path(folder), advance)
                    rows.append({**place, "execution_provider": provider, "rounds": self.rounds, **row(times, reason)})
        ctx.report("latency", rows)
        return model

    def _specs(self, model: Model, ctx: Context, folder: Path, runtime: str) -> tuple[dict[str, Spec], str]:
        """What each process of a round is told, and why there is no baseline, if there is none."""
        how = {"runtime": runtime, "seconds": self.seconds, "iterations": self.iterations, "warmup": self.warmup}
        specs = {"model": {**how, **_located(model, ctx, folder / "model", runtime)}}
        if ctx.baseline is None:
            return specs, "there is no baseline yet"
        if runtime == "torch" and isinstance(ctx.baseline, OnnxModel):
            return specs, "the baseline is an ONNX file, which torch cannot run"
        baseline = {**how, **_located(ctx.baseline, ctx, folder / "baseline", runtime)}
        return {"baseline": baseline, **specs, "again": baseline}, ""

    def _rounds(self, specs: dict[str, Spec], folder: Path, advance: Callable[..., None]) -> tuple[Times, str]:
        """Run every spec once a round, over three rounds each first, second and last once: a drift favours none."""
        times: Times = {name: [] for name in specs}
        provider = ""
        for i in range(self.rounds):
            turn = i % len(specs)
            for name in [*specs][turn:] + [*specs][:turn]:
                samples, provider = measure(specs[name], folder)
                times[name].append(samples)
            advance(1, f"{specs['model']['runtime']}, threads {specs['model']['threads']}")
        return times, provider


LESS = "Lower `batch`, or run where there is more memory"
NO_TORCH: dict[str, Any] = {
    "found": "`runtimes` has torch, and the model is an ONNX file here",
    "expected": "runtimes: [onnxruntime]",
    "fix": "Leave torch out, or measure before export.onnx",
}


def measure(spec: Spec, folder: Path) -> tuple[list[float], str]:
    """Time a model in a fresh process.

    Args:
        spec: what `stages.benchmark.child` is told, without `result`; paths are absolute.
        folder: where the spec and the result are written.

    Returns:
        Latencies in milliseconds, and the execution provider.

    Raises:
        StageError: the process failed; with the last lines that it wrote.
        ResourceError: it was killed, most likely for memory.
    """
    path, result = folder / "spec.json", folder / "result.json"
    result.unlink(missing_ok=True)
    path.write_text(json.dumps({**spec, "result": str(result)}))
    command = [sys.executable, "-m", "stages.benchmark.child", str(path)]
    # -m looks in the current folder first: ours, not one where the user may have an onnx.py.
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode == -signal.SIGKILL:
        raise ResourceError("the process that timed was killed, as the system does when memory runs out", fix=LESS)
    if ended.returncode or not result.is_file():
        last = " | ".join(ended.stderr.strip().splitlines()[-5:]) or "no message"
        raise StageError(f"the process that timed {spec['model']} ended with {ended.returncode}: {last}")
    content = json.loads(result.read_text())
    return [ns / 1e6 for ns in content["samples_ns"]], str(content["execution_provider"])


def row(times: Times, reason: str = "") -> dict[str, JsonValue]:
    """One line of the record.

    Args:
        times: see `Times`; without "baseline" and "again" there are absolute figures alone.
        reason: why there is no baseline.
    """
    samples = [value for process in times["model"] for value in process]
    figures, reasons = percentiles(samples)
    medians = {name: [median(process) for process in rounds] for name, rounds in times.items()}
    found: dict[str, JsonValue] = {
        "samples": len(samples),
        **figures,
        "mean_ms": fmean(samples),
        "min_ms": min(samples),
        "ratio": None,
        "noise": None,
        "baseline_p50_ms": None,
    }
    if reason:
        reasons |= dict.fromkeys(("ratio", "noise", "baseline_p50_ms"), reason)
    else:
        ratio, noise = compare(medians["model"], medians["baseline"], medians["again"])
        found["ratio"] = {**ratio.json, "verdict": judge(ratio, noise)}
        found["noise"] = noise.json
        found["baseline_p50_ms"] = median(v for name in ("baseline", "again") for p in times[name] for v in p)
        if ratio.low is None:
            reasons["ratio"] = f"{len(medians['model'])} rounds; an interval needs {FEWEST_ROUNDS}"
    return {**found, "reasons": {**reasons}}


def _located(model: Model, ctx: Context, folder: Path, runtime: str) -> dict[str, str]:
    """Where a child finds the model, in the form that the runtime takes."""
    if runtime == "torch" and isinstance(model, TorchModel):
        model.save(folder)
        return {"model": str(folder), "folder": str(model.builder.folder.resolve())}
    return {"model": str(ctx.deployed(model).path.resolve())}


def save_inputs(example: Inputs, batch: int, path: Path) -> str:
    """Write a batch of the example's inputs, repeated as often as needed."""
    rows = torch.arange(batch)
    np.savez(path, **{name: value[rows % len(value)].cpu().numpy() for name, value in example.items()})  # type: ignore[arg-type]
    return str(path)


def _cores() -> int:
    available = getattr(os, "sched_getaffinity", None)  # what this process may use; Linux alone tells
    return len(available(0)) if available else os.cpu_count() or 1
