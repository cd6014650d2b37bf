"""What int8 files answer on x86 without VNNI: emulated, beside ONNX Runtime itself without VNNI.

    python benchmarks/isa.py [--nets digits cifar10 fsdd sst2] [--data FOLDER] [--weights FILE] [--words MODEL]
        [--examples 200] [--emulator qemu-x86_64-static] [--cpu Haswell] [--runs runs] [--limit N]
        [--isa avx512 --build FOLDER]

Networks and arguments are those of runtimes.py, besides. ONNX Runtime runs in QEMU's user-mode emulator (Debian:
package qemu-user-static) as a CPU with AVX2 and no VNNI. Printed for each network: its score on all test examples here
and, emulated, there; and on the first `examples` of them how many decisions of the emulation are those of the real run,
the largest difference of an output, and how many decisions of the real run are others than here. Without the emulator
it ends with 1. FOLDER has a package onnxruntime of the same version that does not use VNNI, which then runs in place of
the emulator.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLUMNS = (
    *("network", "score here", "score there", "decisions changed", "worst layer"),
    *("examples", "decisions as in the real run", "largest difference", "others than here", "real run, s"),
)


def answer(folder: Path) -> None:
    """What ONNX Runtime gives for each feed of a folder: run in the emulator, so nothing else is imported."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    for feed in sorted(folder.glob("feed-*.npz")):
        np.savez(folder / feed.name.replace("feed", "outputs"), *session.run(None, dict(np.load(feed))))


def answered(model: Path, feeds: list[dict[str, Any]], before: Sequence[str] = ()) -> list[list[Any]]:
    """The outputs of a file for feeds, from a process that a command such as an emulator's is put before."""
    import numpy as np

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(model, folder / "model.onnx")
        for i, feed in enumerate(feeds):
            np.savez(folder / f"feed-{i:05}.npz", **feed)
        command = [*before, sys.executable, __file__, "--answer", name]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return [[*np.load(file).values()] for file in sorted(folder.glob("outputs-*.npz"))]


def quantized(name: str, arguments: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    """The record of a network's run, and its task."""
    import yaml
    from runtimes import CONFIGS, nets

    from pipeline import runner

    net = nets(arguments.data.resolve(), arguments.weights.resolve(), arguments.words)[name]
    chain = {"task": net.task, "model": net.model, "baseline": net.baseline, "target": {"isa": arguments.isa}}
    chain["stages"] = [{"use": "export.onnx"}, net.quantize]
    limit = arguments.limit or net.limit
    with tempfile.NamedTemporaryFile("w", dir=CONFIGS / net.folder, suffix=".yaml") as config:
        yaml.safe_dump({**chain, **({"limit": limit} if limit else {})}, config)
        config.flush()
        command = [sys.executable, "-m", "pipeline", "run", config.name, "--json", "--runs", str(arguments.runs)]
        record = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        with runner.planned(config.name, runs=arguments.runs) as (built, _):
            return record, built.task


def line(name: str, arguments: argparse.Namespace) -> list[str]:
    """The line of a network."""
    import numpy as np

    from pipeline.measure.isa.emulate import emulate
    from pipeline.model import OnnxModel

    record, task = quantized(name, arguments)
    stage = record["stages"][-1]
    model = OnnxModel.load(Path(record["folder"]) / stage["folder"])
    split = task.test.select(list(range(min(arguments.examples, len(task.test)))))
    batches = [model.feed(batch.inputs) for batch in split.loader(stage["batch"])]
    taken = {value.name for value in model.session.get_inputs()}
    feeds = [{key: value.numpy() for key, value in batch.items() if key in taken} for batch in batches]
    start = time.perf_counter()
    emulator = [arguments.emulator, "-cpu", arguments.cpu]
    before = ["env", f"PYTHONPATH={arguments.build.resolve()}"] if arguments.build else emulator
    real = answered(model.path, feeds, before)
    took = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        emulated = answered(emulate(model, arguments.isa, Path(folder)).model.path, feeds)
    here = answered(model.path, feeds)
    logits = [np.concatenate([outputs[0] for outputs in each]) for each in (real, emulated, here)]
    there, ours, usual = (values.reshape(-1, values.shape[-1]).argmax(-1) for values in logits)
    target = stage["target"]
    worst = target["layers"][0] if target["layers"] else None
    return [
        name,
        f"{stage['score']:.4f}",
        f"{target['score']:.4f}",
        f"{target['changed']:.2%}",
        f"{worst['place']}, {worst['operator']}: {worst['error']:.2%}" if worst else "-",
        f"{len(split):,}",
        f"{(there == ours).mean():.2%}",
        f"{abs(logits[0] - logits[1]).max():.3g} of {np.ptp(logits[0]):.3g}",
        f"{(there != usual).mean():.2%}",
        f"{took:.0f}",
    ]


def main() -> None:
    """Print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=["digits", "cifar10", "fsdd", "sst2"])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--weights", type=Path, default=Path("resnet56.th"))
    parser.add_argument("--words", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--limit", type=int, help="examples of a split at most, in place of the network's")
    parser.add_argument("--emulator", default="qemu-x86_64-static")
    parser.add_argument("--cpu", default="Haswell")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--isa", default="avx2", choices=["avx2", "avx512"], help="of the real run, too")
    parser.add_argument("--build", type=Path)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        answer(arguments.answer)
        return
    if not arguments.build and not shutil.which(arguments.emulator):
        sys.exit(f"{arguments.emulator} is not installed")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in arguments.nets:
        print(f"| {' | '.join(line(name, arguments))} |", flush=True)


if __name__ == "__main__":
    main()
