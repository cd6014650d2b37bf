"""Why latencies are measured in turns: the ratio of a model to itself, which is 1, in turns and one after the other.

    python benchmarks/interleaving.py --trials 5

Both ways start equally many processes and take Student's interval of log-medians: in turns over the ratios of rounds,
one after the other over two samples (Welch). Once on the machine as it is, once with a neighbour that comes and goes
and that wants memory, which all share: one that wants a core alone hardly moves the median of a model that fits the
cache, in either way. A few trials say little about which way is right how often; raise --trials for that.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import exp
from pathlib import Path
from statistics import fmean, median

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from scipy import stats

from pipeline.measure.statistics.ratios import Ratio, compare
from stages.benchmark.conversion import save_inputs
from stages.benchmark.processes.process import Spec, time_process
from stages.benchmark.timing.rounds import AGAIN, BASELINE, Failures, Group, Participant, in_turns

MODEL = Participant("model", "the same")
NEIGHBOUR = """
import sys, time
import numpy as np
block, period = np.zeros(8_000_000), float(sys.argv[1])
while True:
    end = time.monotonic() + period
    while time.monotonic() < end:
        block += 1
    time.sleep(period)
"""
WIDTH, LAYERS = 512, 8  # 8 MB of weights: memory is what neighbours share


def main() -> None:
    """Print a line a trial and the mean of both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--period", type=float, default=10, help="seconds for which the neighbour works, then rests")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        spec = _spec(Path(name), given.seconds)
        for count, title in ((0, "as it is"), (1, f"with a neighbour, {given.period:g} s on and off")):
            with neighbours(count, given.period):
                print(f"\nthe machine {title}: in turns, and one after the other")
                found = [_trial(spec, given.rounds, Path(name)) for _ in range(given.trials)]
            for way, ratios in zip(("in turns", "one after the other"), zip(*found, strict=True), strict=True):
                _summary(way, ratios)


def _trial(spec: Spec, rounds: int, folder: Path) -> tuple[Ratio, Ratio]:
    found = _interleaved(spec, rounds, folder), _one_after_the_other(spec, rounds, folder)
    print("   ".join(f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}] width {_width(one):.3f}" for one in found))
    return found


def _interleaved(spec: Spec, rounds: int, folder: Path) -> Ratio:
    specs = {BASELINE: spec, MODEL: spec, AGAIN: spec}
    (timed,) = in_turns([Group(specs, Failures())], rounds, folder, lambda steps, note: None, lambda: False)
    medians = {who: [median(process) for process in found.processes] for who, found in timed.items()}
    return compare(medians[MODEL], medians[BASELINE], medians[AGAIN])[0]


def _one_after_the_other(spec: Spec, rounds: int, folder: Path) -> Ratio:
    first, second = (
        np.log([median(time_process(spec, folder)[0]) for _ in range(count)]) for count in (2 * rounds, rounds)
    )
    found = stats.ttest_ind(second, first, equal_var=False)
    interval = found.confidence_interval(0.95)
    return Ratio(exp(second.mean() - first.mean()), exp(interval.low), exp(interval.high))


def _summary(way: str, ratios: tuple[Ratio, ...]) -> None:
    off = [abs(one.value - 1) for one in ratios]
    held = sum(one.low <= 1 <= one.high for one in ratios if one.low is not None and one.high is not None)
    widths = fmean(_width(one) for one in ratios)
    print(f"{way}: off by {fmean(off):.3f}, at most {max(off):.3f}; mean width {widths:.3f}; 1 in {held} of {len(off)}")


def _width(found: Ratio) -> float:
    return (found.high or 0.0) - (found.low or 0.0)


def _spec(folder: Path, seconds: float) -> Spec:
    """What a process is told: a chain of matrix products, one thread."""
    names = ["input", *(f"h{i}" for i in range(LAYERS - 1)), "output"]
    nodes = [helper.make_node("MatMul", [a, f"w_{b}"], [b]) for a, b in pairwise(names)]
    weights = [numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), f"w_{name}") for name in names[1:]]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", WIDTH]) for n in ("input", "output")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "m.onnx")
    inputs = save_inputs({"input": torch.rand(1, WIDTH)}, folder / "inputs.npz")
    how = {
        "runtime": "onnxruntime",
        "runner": "onnxruntime",
        "seconds": seconds,
        "iterations": None,
        "warmup": 20,
        "threads": 1,
    }
    return {**how, "model": str(folder / "m.onnx"), "inputs": inputs}


@contextmanager
def neighbours(count: int, period: float, core: int | None = None) -> Iterator[None]:
    """So many processes that write 64 MB again and again for `period` seconds and rest as long, on one core if said."""
    busy = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(period)]) for _ in range(count)]
    try:
        for process in busy:
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
