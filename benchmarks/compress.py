"""Our static int8 beside Olive, NNCF, Optimum and onnx-neural-compressor, on the same ONNX file and the same examples.

    python benchmarks/compress.py --environments FOLDER --work FOLDER [--nets cifar10 sst2] [--tools ours nncf ...]
        [--data FOLDER] [--weights FILE] [--words MODEL] [--rounds 7] [--seconds 1] [--limit 200] [--json FILE]

Each tool is installed in an environment of its own below `--environments`, and used as its own documentation says
(peers/by_*.py); ours is peers/ours.yaml by `shrink run`. `--work` keeps the fp32 files, the examples and what each tool
made, wrote and took: a way whose folder is there is not made again. `--data` has cifar10 and sst2 as parquet,
`--weights` is the published resnet56.th, `--words` is all-MiniLM-L6-v2, which is trained on SST-2 for an epoch first.

All get the same 512 examples to calibrate on, and those that control accuracy the same with labels: of SST-2 8,000
phrases held out from train, of CIFAR-10 5,000 test images, for the published weights have seen train. Printed for each,
as a table a network: wall time and peak memory of the fresh process that made the file, its bytes, accuracy on the test
with the paired interval of the difference to fp32, and latency over that of fp32 in ONNX Runtime, in turns, one thread,
batch 1; below it each of ours beside the best of theirs. A tool that fails has its last line in its row.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers.figures import latencies, scores
from peers.making import REQUIREMENTS, WAYS, Cost, Way, install, made
from peers.nets import nets, prepare
from peers.table import COLUMNS, Row, aims, figures, line

from pipeline.errors import StageError
from pipeline.measure.statistics.pairs import Scores

DROP = 0.003
"""Of accuracy, what may be lost where it is controlled."""


def rows_of(
    name: str, folder: Path, given: argparse.Namespace
) -> tuple[list[Row], list[tuple[Way, Cost]], list[float]]:
    """Those of a network with fp32 first, the ways that failed, and the latencies of fp32 once more."""
    fp32, test = folder / "fp32.onnx", folder / "test.npz"
    whole: list[tuple[Way, Cost, Scores]] = []
    failed: list[tuple[Way, Cost]] = []
    with tempfile.TemporaryDirectory() as work:
        first = Cost(0.0, None, 0, fp32.stat().st_size, fp32, "")
        whole.append((Way("fp32", ""), first, scores(fp32, test, Path(work))))
        for way in (way for way in WAYS[name] if way.tool in given.tools):
            print(f"{name}: {way.title}", file=sys.stderr, flush=True)
            cost = made(way, folder, given.environments.resolve(), DROP)
            try:
                right = scores(cost.file, test, Path(work)) if cost.file else None
            except StageError as error:  # ONNX Runtime does not run what the tool wrote
                right, cost = None, cost._replace(file=None, error=str(error).splitlines()[-1])
            if right is None:
                failed.append((way, cost))
            else:
                whole.append((way, cost, right))
        files = [cost.file or fp32 for _, cost, _ in whole]
        times = latencies([*files, fp32], test, given.rounds, given.seconds, Path(work))
    return [Row(*parts, own) for parts, own in zip(whole, times[:-1], strict=True)], failed, times[-1]


def main() -> None:
    """Read the command line, and print a table a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--nets", nargs="+", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--tools", nargs="+", default=["ours", *REQUIREMENTS], choices=["ours", *REQUIREMENTS])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--weights", type=Path, default=Path("resnet56.th"))
    parser.add_argument("--words", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1, help="of each process that is timed")
    parser.add_argument("--limit", type=int, help="examples of each part at most, for a trial, in a folder of its own")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    for tool in given.tools:
        install(tool, given.environments)
    known = nets(given.data.resolve(), given.weights.resolve(), given.words)
    content: dict[str, Any] = {}
    for name in given.nets:
        folder = (given.work / (f"{name}-{given.limit}" if given.limit else name)).resolve()
        prepare(known[name], folder, given.limit)
        rows, failed, again = rows_of(name, folder, given)
        told = [figures(row, rows[0], again) for row in rows]
        print(f"\n{name}\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for row, one in zip(rows, told, strict=True):
            print(f"| {' | '.join(line(one, row.way.title.rstrip(', ')))} |")
        for way, cost in failed:
            print(f"| {way.title} | {cost.seconds:.1f} | {cost.peak_bytes / 1e6:,.0f} | {cost.error} |" + " |" * 5)
        judged = [*aims(rows[1:], rows[0], again)]
        print("", *judged, sep="\n", flush=True)
        failures = [{"tool": way.tool, "method": way.method, **cost._asdict()} for way, cost in failed]
        content[name] = {"rows": told, "failed": failures, "aims": judged, "fp32_again_ms": again}
    if given.json:
        given.json.write_text(json.dumps(content, indent=1, default=str))


if __name__ == "__main__":
    main()
