"""Peak memory of a chain on few and on many examples: it stays flat.

    python benchmarks/memory.py [--small 10000] [--large 200000] [--held-out 2000]

Writes texts as parquet, and for each size trains a tiny encoder on them for an epoch, exports and measures it, in a
process of its own. Prints the peak of its resident memory (RSS) after each step and the ratio of the two sizes. Of RSS
the part that is mapped from files, here the examples, is the system's to take back when others need it.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = 2000
ROWS_AT_ONCE = 5000
BERT: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=10_000, help="examples of train")
    parser.add_argument("--large", type=int, default=200_000, help="examples of train")
    parser.add_argument("--held-out", type=int, default=2000, help="of validation and of test, whatever the size")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(list(peaks(given.child))))
        return
    with tempfile.TemporaryDirectory() as folder:
        sizes = given.small, given.large
        small, large = (measured(Path(folder) / str(size), size, given.held_out) for size in sizes)
    print(f"| peak RSS in MB after | {sizes[0]:,} examples | {sizes[1]:,} | ratio |\n|---|---|---|---|")
    for (step, few), (_, many) in zip(small, large, strict=True):
        print(f"| {step} | {few:.0f} | {many:.0f} | {many / few:.3f} |")


def measured(folder: Path, size: int, held_out: int) -> list[tuple[str, float]]:
    """What `peaks` finds in a fresh process, on a set of that size."""
    write(folder / "data", size, held_out)
    environment = {**os.environ, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--child", str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [(step, peak) for step, peak in json.loads(done.stdout.splitlines()[-1])]


def write(folder: Path, size: int, held_out: int) -> None:
    """Parquet of texts of 5 to 20 words with one of two labels, a few thousand rows in memory at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True)
    draw = random.Random(0)
    schema = pa.schema({"text": pa.string(), "label": pa.int64()})
    for name, count in (("train", size), ("validation", held_out), ("test", held_out)):
        with parquet.ParquetWriter(folder / f"{name}.parquet", schema) as writer:
            for start in range(0, count, ROWS_AT_ONCE):
                texts = [" ".join(drawn(draw)) for _ in range(min(ROWS_AT_ONCE, count - start))]
                labels = [hash_of(text) for text in texts]
                writer.write_table(pa.table({"text": texts, "label": labels}, schema=schema))


def drawn(draw: random.Random) -> list[str]:
    """The words of a text."""
    return [f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(5, 20))]


def hash_of(text: str) -> int:
    """A label that the first word tells."""
    return int(text.split()[0][1:]) % 2


def peaks(folder: Path) -> Iterator[tuple[str, float]]:
    """The largest resident memory so far in MB, after each step."""
    from pipeline.build.config import PipelineConfig
    from pipeline.build.probe import probe
    from pipeline.build.start import build_task
    from pipeline.runner import run

    tokenizer(folder / "tokenizer")
    made = {
        "name": "memory",
        "task": config_of(folder / "data", folder),
        "model": {"use": "huggingface", "config": BERT},
        "baseline": [{"use": "train.supervised", "epochs": 1, "batch_size": 128}],
        "stages": [
            {"use": "distill.logits", "student": {"shrink_of": "teacher", "intermediate_size": 16}, "epochs": 1,
             "batch_size": 128},
            {"use": "export.onnx"},
        ],
    }  # fmt: skip
    config = PipelineConfig.model_validate(made)
    warm(folder)
    yield "imports", peak()
    task = build_task(config.task)
    yield "reading and tokenizing", peak()
    probe(task)
    yield "looking at every example", peak()
    alone = config.model_copy(update={"stages": config.stages[-1:]})
    run(alone, runs=folder / "runs", track=False)
    yield "train, export", peak()
    run(config, runs=folder / "runs", track=False)
    yield "distill from kept logits, export", peak()


def config_of(data: Path, folder: Path) -> dict[str, Any]:
    """The task on a set."""
    return {"use": "huggingface", "data": str(data), "tokenizer": str(folder / "tokenizer")}


def tokenizer(folder: Path) -> None:
    """A tokenizer of the words, in a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", *(f"w{i}" for i in range(WORDS))]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


def warm(folder: Path) -> None:
    """Import what a chain imports, by running one on a handful of examples."""
    from pipeline.build.config import PipelineConfig
    from pipeline.runner import run

    write(folder / "few", 64, 64)
    made = {
        "task": {**config_of(folder / "few", folder), "limit": 64},
        "model": {"use": "huggingface", "config": BERT},
        "baseline": [{"use": "train.supervised", "epochs": 1, "batch_size": 16}],
        "stages": [{"use": "export.onnx"}],
    }
    run(PipelineConfig.model_validate(made), runs=folder / "runs", track=False)


def peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
