"""What sequence-level distillation brings in BLEU: a finished run of configs/multi30k/sequence.yaml, judged in pairs.

    shrink run configs/multi30k/sequence.yaml [--set task.path=FOLDER]
    python benchmarks/multi30k.py RUN [--draws 10000]

Reads what the run keeps of the teacher, the student and the same student trained on the references alone (`control:
true`) on test, and prints a row of each, then the differences with 95 % intervals: the test sentences are drawn again
with replacement, the same ones for both models. One seed, so the doubt is that of the test sentences alone.

Reference:
    Koehn: Statistical significance tests for machine translation evaluation, 2004, section 4 (the paired bootstrap).
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.base.use import Reference, find
from pipeline.build.start import build_task
from pipeline.measure.accuracy import Evaluation
from pipeline.records.record import Record


class Judged(NamedTuple):
    """A model on the test split: BLEU's counts (N, 10) and chrF (N,) of each sentence."""

    counts: NDArray[np.int64]
    chrf: NDArray[np.float64]


def main() -> int:
    """Print the figures of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=10_000)
    given = parser.parse_args()
    record = Record.load(given.run)
    student = next((stage for stage in record.stages if "control" in stage.comparisons), None)
    if student is None or record.baseline is None or record.origin is None:
        print(f"{given.run} is no finished run with `control: true`", file=sys.stderr)
        return 2
    folder = Path(record.origin.folder)
    task: Any = record.config["task"]
    places = {
        "teacher": record.baseline.predictions,
        "student, references": student.comparisons["control"].predictions,
        "student, distilled": student.predictions,
    }
    found = judged({name: given.run / place for name, place in places.items()}, Reference(**task, folder=folder))
    bleu_of = find("words.py:bleu_of", folder)
    print("| model | parameters | BLEU | chrF |\n|---|---|---|---|")
    for name, one in found.items():
        params = record.baseline.params if name == "teacher" else student.params
        print(f"| {name} | {params:,} | {bleu_of(one.counts):.2f} | {100 * one.chrf.mean():.2f} |")
    for first, second in (("student, distilled", "student, references"), ("student, distilled", "teacher")):
        print(f"{first} over {second}: {difference(found[first], found[second], bleu_of, given.draws)}")
    return 0


def judged(places: dict[str, Path], reference: Reference) -> dict[str, Judged]:
    """What each file of predictions is worth against the references of the task's test split."""
    task, folder = build_task(reference), reference.folder
    texts, counts = (find(f"words.py:{name}", folder) for name in ("texts", "counts"))
    metric: Any = task.metrics["bleu"]
    tokenizer = metric.args[0]
    references = [text for batch in task.test.loader(256) for text in texts(tokenizer, batch.targets)]
    found = {}
    for name, path in places.items():
        kept = Evaluation.load(path)
        rows = [counts(*row) for row in zip(texts(tokenizer, kept.predictions), references, strict=True)]
        found[name] = Judged(np.array(rows), kept.scores.numpy())
    return found


def difference(first: Judged, second: Judged, bleu_of: Any, draws: int) -> str:
    """BLEU and chrF of the first over the second, each with its interval."""
    size, draw = len(first.chrf), np.random.default_rng(0)
    bleu, chrf = np.empty(draws), np.empty(draws)
    for i in range(draws):
        chosen = draw.integers(0, size, size)
        bleu[i] = bleu_of(first.counts[chosen]) - bleu_of(second.counts[chosen])
        chrf[i] = 100 * (first.chrf[chosen].mean() - second.chrf[chosen].mean())
    values = bleu_of(first.counts) - bleu_of(second.counts), 100 * (first.chrf.mean() - second.chrf.mean())
    told = []
    for name, value, drawn in zip(("BLEU", "chrF"), values, (bleu, chrf), strict=True):
        low, high = np.percentile(drawn, [2.5, 97.5])
        told.append(f"{value:+.2f} {name} [{low:.2f}, {high:.2f}]")
    return ", ".join(told)


if __name__ == "__main__":
    raise SystemExit(main())
