"""Small data and models for the tasks of configs/, in place of the hub: as `datasets` and `transformers` read them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from transformers import BertConfig, BertForSequenceClassification

from pipeline.base.use import find
from pipeline.tasks.huggingface.text import tokens
from tests import sets

ROOT = Path(__file__).parents[1]


def pictures(*shape: int) -> Callable[[Path], list[str]]:
    """Writes noise of ten classes, no two alike: 240 to train, and 60 to test where they have colours."""

    def write(folder: Path) -> list[str]:
        features = Features({"image": Image(), "label": ClassLabel(num_classes=10)})
        for seed, (part, count) in enumerate({"train": 240, **({"test": 60} if len(shape) > 2 else {})}.items()):
            pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
            rows = {"image": [Pillow.fromarray(one) for one in pixels], "label": [i % 10 for i in range(count)]}
            Dataset.from_dict(rows, features=features).to_parquet(folder / f"{part}-00000-of-00001.parquet")
        return [f"task.path={folder}"]

    return write


def cifar10(folder: Path) -> list[str]:
    """Pictures, and untrained weights wrapped as the published ones are."""
    data = pictures(32, 32, 3)(folder)
    torch.manual_seed(0)
    teacher = find("models.py:resnet56", ROOT / "configs" / "cifar10")()
    student = find("models.py:ResNet", ROOT / "configs" / "cifar10")(blocks=(3, 3, 3), learned=False)
    for name, module in {"resnet56": teacher, "resnet20": student}.items():
        state = {f"module.{name}": value for name, value in module.state_dict().items()}
        torch.save({"state_dict": state, "best_prec1": 0.0}, folder / f"{name}.th")
    return [*data, f"model.weights={folder / 'resnet56.th'}"]


def recordings(folder: Path) -> list[str]:
    """Noise at 8 kHz, of two speakers, ten digits and twelve recordings each, no two alike."""
    generator = np.random.default_rng(0)
    rows = {
        "audio": [generator.uniform(-0.5, 0.5, 1000 + i).astype(np.float32) for i in range(240)],
        "sampling_rate": [8000] * 240,
        "label": [i // 24 for i in range(240)],
        "speaker": ["ada" if i // 12 % 2 else "bob" for i in range(240)],
    }
    Dataset.from_dict(rows).to_parquet(folder / "train-00000-of-00001.parquet")
    return [f"task.path={folder}"]


def captions(folder: Path) -> list[str]:
    """Pairs of short English and German sentences, no two alike, in a train and a validation part."""
    draw = np.random.default_rng(0)
    for part, size in (("train", 80), ("validation", 16)):
        lines = [" ".join(draw.choice(["dog", "man", "ball", "red"], draw.integers(1, 9))) for _ in range(size)]
        english = [f"{line} {part} {i}" for i, line in enumerate(lines)]
        rows = {"en": english, "de": [line.replace("dog", "Hund").replace("red", "grün") for line in english]}
        Dataset.from_dict(rows).to_parquet(folder / f"{part}-00000-of-00001.parquet")
    return [f"task.path={folder}"]


def reviews(folder: Path) -> list[str]:
    """Sentences of two classes, in a train and a validation part, and an untrained encoder with its tokenizer."""
    rows = sets.texts(400)
    sets.write(folder / "set", **sets.split(rows, train=300, validation=100))
    made, model = tokens.trained(rows, ["text"], 80, "wordpiece", lowercase=True), str(folder / "model")
    made.save_pretrained(model)
    torch.manual_seed(0)
    sizes = {"hidden_size": 72, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertForSequenceClassification(BertConfig(vocab_size=len(made), **sizes)).save_pretrained(model)
    return [f"task.data={folder / 'set'}", f"task.tokenizer={model}", f"model.name={model}"]


WRITERS: dict[str, Callable[[Path], list[str]]] = {
    "cifar10": cifar10,
    "fashion_mnist": pictures(28, 28),
    "fsdd": recordings,
    "mnist": pictures(28, 28),
    "multi30k": captions,
    "sst2": reviews,
}
"""By the folder in configs/: writes what its task and model read into a folder, and gives the overrides that say so."""
