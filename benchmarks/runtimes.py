"""Accuracy, bytes, start-up, latency and memory of real models, fp32 and int8, in every runtime that is here.

    python benchmarks/runtimes.py [--nets digits cifar10 fsdd sst2] [--data FOLDER] [--weights FILE] [--words MODEL]
        [--effort quick | --rounds 3] [--runs runs] [--json FILE]

FOLDER has cifar10, fsdd and sst2 as parquet, a folder each; FILE is the published resnet56.th; MODEL is
all-MiniLM-L6-v2. The networks are those of configs/: digits trained on labels, ResNet-56 as published (2,000 of the
test images), the network for spoken digits trained on labels, MiniLM fine-tuned on 3,000 phrases. One chain a network
measures the torch model, its ONNX file and the file in int8, at batch 1 with one thread, in the runtimes that take
each; what one refuses is told.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import yaml

CONFIGS = Path(__file__).parents[1] / "configs"
TORCH = ["torch", "torch_compile"]
NATIVE = {"use": "openvino", "precision": "native"}
ONNX = ["onnxruntime", "ort", "openvino", NATIVE, "ncnn", "mnn", "executorch", "litert"]

COLUMNS = (
    *("network", "numbers", "runtime", "bytes", "score", "verdict"),
    *("start-up, ms", "p50 (p90), ms", "to the first", "memory (above imports), MB"),
)


class Net(NamedTuple):
    """A network and how it is made small.

    Args:
        folder: of configs/, with its code.
        task, model: of the pipeline file.
        baseline: stages that train it.
        quantize: the stage that makes it int8.
        limit: examples of a split at most; None for all.
    """

    folder: str
    task: dict[str, Any]
    model: dict[str, Any]
    baseline: list[dict[str, Any]]
    quantize: dict[str, Any]
    limit: int | None = None


def nets(data: Path, weights: Path, words: str) -> dict[str, Net]:
    """By name; see above for what is read."""
    minilm = {"use": "train.supervised", "epochs": 1, "batch_size": 32, "learning_rate": 6e-5, "warmup": 0.1}
    static, dynamic = {"use": "quantize.static"}, {"use": "quantize.dynamic"}
    voice = {"use": "models.py:VoiceNet", "widths": [32, 32, 64, 64, 128, 128], "strides": [2, 1, 2, 1, 2, 1]}
    trained = {"use": "train.supervised", "epochs": 40, "learning_rate": 0.003, "weight_decay": 0.05}
    sst2 = {"use": "data.py", "data": str(data / "sst2"), "tokenizer": words}
    return {
        "digits": Net(
            "digits",
            {"use": "digits"},
            {"use": "models.py:DigitNet", "width": 64, "blocks": 3},
            [{"use": "train.supervised", "epochs": 15, "learning_rate": 0.002}],
            static,
        ),
        "cifar10": Net(
            "cifar10",
            {"use": "data.py", "path": str(data / "cifar10")},
            {"use": "models.py:resnet56", "weights": str(weights)},
            [],
            static,
            limit=2000,
        ),
        "fsdd": Net("fsdd", {"use": "data.py", "path": str(data / "fsdd"), "augment": True}, voice, [trained], static),
        "sst2": Net("sst2", sst2, {"use": "huggingface", "name": words}, [minilm], dynamic, limit=3000),
    }


def here(runtimes: Sequence[Any]) -> list[Any]:
    """Those that are installed."""
    command = [sys.executable, "-m", "pipeline", "runtimes", "--json"]
    listed = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    missing = {one["name"] for one in listed if one["missing"]}
    return [one for one in runtimes if (one["use"] if isinstance(one, dict) else one) not in missing]


def chain(net: Net, how: dict[str, Any]) -> dict[str, Any]:
    """The pipeline file of a network; `how` are settings of benchmark.latency."""
    timed = {"use": "benchmark.latency", **how}
    return {
        "task": net.task,
        "model": net.model,
        **({"baseline": net.baseline} if net.baseline else {}),
        "stages": [
            {**timed, "runtimes": here(TORCH)},
            {"use": "export.onnx"},
            {**timed, "runtimes": here(ONNX)},
            net.quantize,
            {**timed, "runtimes": here(ONNX)},
        ],
    }


def record_of(net: Net, arguments: argparse.Namespace) -> dict[str, Any]:
    """The record of a network's run."""
    folder = CONFIGS / net.folder
    how = {"rounds": arguments.rounds} if arguments.rounds else {"effort": arguments.effort}
    with NamedTemporaryFile("w", dir=folder, suffix=".yaml") as config:  # beside its code
        yaml.safe_dump(chain(net, how), config)
        config.flush()
        command = [sys.executable, "-m", "pipeline", "run", config.name, "--json", "--runs", str(arguments.runs)]
        command += ["--limit", str(net.limit)] if net.limit else []
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        sys.exit(f"the run of {net.folder} ended with {ended.returncode}")
    return dict(json.loads(ended.stdout))


def lines(name: str, record: dict[str, Any]) -> Iterator[list[str]]:
    """The lines of the table of a network."""
    for stage in record["stages"]:
        precision = "int8" if stage["position"] == len(record["stages"]) - 1 else "fp32"
        for row in stage["latency"]:
            title = " ".join([row["runtime"], *map(str, (row.get("settings") or {}).values())])
            if "skipped" in row:
                yield [name, precision, title, f"skipped: {row['skipped']}"[:100], *[""] * 6]
                continue
            score, startup, memory = row.get("score") or {}, row["startup"], row["memory"]
            yield [
                name,
                precision,
                title,
                f"{row['size_bytes']:,}",
                f"{score['value']:.4f}" if score else "-",
                score.get("verdict", "-"),
                f"{1000 * startup['total_s']['value']:.0f}",
                f"{row['p50_ms']:.3f} ({row['p90_ms'] or float('nan'):.3f})",
                _ratio(row.get("to_first")),
                f"{memory['peak_bytes'] / 1e6:.0f} ({memory['above_imports_bytes'] / 1e6:.0f})" if memory else "-",
            ]


def _ratio(ratio: dict[str, Any] | None) -> str:
    if not ratio or ratio["low"] is None:
        return "-"
    return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}], {ratio['verdict']}"


def main() -> None:
    """Print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=["digits", "cifar10", "fsdd", "sst2"])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--weights", type=Path, default=Path("resnet56.th"))
    parser.add_argument("--words", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--effort", default="quick", choices=["quick", "full"])
    parser.add_argument("--rounds", type=int, help="in place of an effort, of 0.3 s each: sooner, p90 of fewer samples")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    known = nets(arguments.data.resolve(), arguments.weights.resolve(), arguments.words)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    records = {}
    for name in arguments.nets:
        records[name] = record_of(known[name], arguments)
        for line in lines(name, records[name]):
            print(f"| {' | '.join(line)} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(records))


if __name__ == "__main__":
    main()
